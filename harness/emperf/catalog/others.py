"""Sets that others wrote: a card names URL, revision and sha256, and a local copy (EMPERF_UPSTREAM) has the rows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from emperf.catalog import copies
from emperf.catalog.cards import Source
from emperf.catalog.pinned import Row, json_lines
from emperf.core import paths, schemas
from emperf.core.errors import UserError


@dataclass(frozen=True)
class Others:
    """A set that is named and not shipped. `form`: what its entries are, a part of spec/schemas/rows.schema.json.

    asked         -> {id, question, system: text or None, domain}; `domain` is the id without its number and its form
    word-problem  -> {id, question, answer: whole number in digits}
    request       -> {id, question, domain, label: "safe" or "unsafe"}
    """

    name: str
    title: str
    licence: str
    source: Source
    form: str

    def rows(self) -> list[Row]:
        """In the file's order. Raises UserError for a missing or altered copy, and for an entry of another form."""
        path = copies.find(self.source, f"the set {self.name}")
        fix = f"Fetch {self.source.file} from {self.source.locator} at {self.source.revision}."
        read, build = _FORMS[self.form]
        rows: dict[str, Row] = {}
        for number, entry in read(path, paths.read_file(path, fix)):
            try:
                schemas.check_written(f"rows#{self.form}", entry)
                row = build(entry, f"{self.name}-{number}")
                if rows.setdefault(row["id"], row) is not row:
                    raise ValueError(f"id: {row['id']!r} is given twice")
            except ValueError as error:
                raise UserError(f"{path}, entry {number}: {error}", "Pin another file in the card.") from None
        return list(rows.values())


def questions() -> dict[str, Others]:
    """`first-plot` and `preregistered`, free-form questions of the field. Raises UserError for a malformed card."""
    return _sets("questions")


def panel() -> dict[str, Others]:
    """`gsm8k` and `xstest`, larger sets of side effects. Raises UserError for a malformed card."""
    return _sets("panel")


def _sets(folder: str) -> dict[str, Others]:
    path = paths.project_folder("benchmark") / folder / "others.yaml"
    return schemas.read(path, "others", lambda raw: {name: _parse(name, said) for name, said in raw.items()})


def _parse(name: str, said: dict[str, str]) -> Others:
    source = Source("git", said["locator"], said["revision"], said["sha256"], said["file"])
    return Others(name, said["title"], said["licence"], source, said["form"])


def _yaml_entries(path: Path, data: bytes) -> Iterable[tuple[int, Any]]:
    try:
        found = yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise UserError(f"{path} is not valid YAML", "Pin another file in the card.") from None
    if not isinstance(found, list):
        raise UserError(f"{path} is no list of questions", "Pin another file in the card.")
    return enumerate(found, 1)


def _csv_entries(path: Path, data: bytes) -> Iterator[tuple[int, Any]]:
    try:
        yield from enumerate(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True), 1)
    except (csv.Error, UnicodeDecodeError):
        raise UserError(f"{path} is no table in UTF-8", "Pin another file in the card.") from None


def _asked(entry: dict[str, Any], _: str) -> Row:
    (question,) = entry["paraphrases"]
    domain = re.sub(r"^\d+_|(_\d+|_json|_template)$", "", entry["id"])
    return {"id": entry["id"], "question": question, "system": entry.get("system"), "domain": domain}


def _word_problem(entry: dict[str, Any], name: str) -> Row:
    answer = entry["answer"].rpartition("#### ")[2].replace(",", "")
    return {"id": name, "question": entry["question"], "answer": answer}


def _request(entry: dict[str, Any], _: str) -> Row:
    return {
        "id": entry["id"],
        "question": entry["prompt"],
        "domain": entry["type"],
        "label": entry["label"],
    }


_Read = Callable[[Path, bytes], Iterable[tuple[int, Any]]]
_FORMS: dict[str, tuple[_Read, Callable[[dict[str, Any], str], Row]]] = {
    "asked": (_yaml_entries, _asked),
    "word-problem": (json_lines, _word_problem),
    "request": (_csv_entries, _request),
}
