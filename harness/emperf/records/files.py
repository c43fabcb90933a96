"""Records as files: what is written keeps its type, and what is read does too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emperf.core.errors import UserError
from emperf.core.files import read_json, write_json
from emperf.records.comparison import Comparison
from emperf.records.conformance import Conformance
from emperf.records.evaluation import Evaluation
from emperf.records.provenance import SCHEMA, Provenance, kept
from emperf.records.result import Result
from emperf.records.trace import Trace
from emperf.records.tuning import Tuning

Json = dict[str, Any]
# What an experiment leaves in its run's folder, as KIND.json.
KINDS: dict[str, type[Provenance]] = {
    "result": Result,
    "comparison": Comparison,
    "tuning": Tuning,
    "trace": Trace,
    "evaluation": Evaluation,
}
TYPES: dict[str, type[Provenance]] = {**KINDS, "conformance": Conformance, "provenance": Provenance}


def check(kind: str, whole: Json) -> None:
    """Raises ValueError with the first place where `whole`, written as JSON, breaks the type of its kind."""
    try:
        TYPES[kind].model_validate_json(json.dumps(whole, allow_nan=False))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise ValueError(f"{place}: {first['msg']}") from None


def finish(kind: str, folder: Path, whole: Json, *, measured: bool) -> Json:
    """Write a record into its run's folder, checked; gives what was written.

    `measured`: whether anything was measured anew. If not, a record that lies there keeps its date and its machine.
    Raises ValueError as `check`.
    """
    path = folder / f"{kind}.json"
    if not measured:
        whole = kept(whole, read_json(path))
    check(kind, whole)
    write_json(path, whole)
    return whole


def kind_in(folder: Path) -> str:
    """Which record lies in a run's folder. Raises UserError if there is none."""
    for kind in KINDS:
        if (folder / f"{kind}.json").is_file():
            return kind
    raise UserError(
        f"{folder} holds no result.json", "Is the run finished? The command that began it goes on with it."
    )


def read(kind: str, path: Path) -> Json:
    """A record's content. Raises UserError where the file is missing, damaged, of another version or not valid."""
    found = read_json(path)
    if found is None:
        raise UserError(
            f"There is no {path}", "Is the run finished? The command that began it goes on with it."
        )
    version = found.get("schema") if isinstance(found, dict) else None
    if type(version) is int and version != SCHEMA:
        raise UserError(
            f"{path} was written by another version of EMPerf: schema {version}, this one reads {SCHEMA}",
            "Run it again, or use the version that wrote it.",
        )
    try:
        check(kind, found)
    except ValueError as error:
        raise UserError(f"{path} is not valid: {error}", "Run it again with this version.") from None
    whole: Json = found
    return whole
