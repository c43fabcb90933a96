"""benchmark/ as typed objects. Rows are checked against the sha256 in their card before any use."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from emperf.catalog.divisions import Division
from emperf.core import digests, paths, schemas
from emperf.core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class RowsFile:
    """A pinned JSON-lines file. `rows()` checks the digest first."""

    path: Path
    sha256: str

    def rows(self) -> list[dict[str, Any]]:
        """Raises UserError if the file is missing or is not the pinned one."""
        return pinned_rows(
            self.path, self.sha256, "Restore it from the repository; results with other data do not compare."
        )


@dataclass(frozen=True)
class Source:
    """Where upstream data or weights come from. `kind`: package, hub or path for weights, git for rows.

    A package may come in `parts`, sources of their own whose files are joined in order. `sha256` is of the wheel or of
    the file with rows; of a package in parts it is of the joined file, and may be empty.
    """

    kind: str
    locator: str
    revision: str = ""
    sha256: str = ""
    file: str = ""
    parts: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Model:
    """A model card. `digest` pins weights by tensor content, `tokenizer_sha256` the tokenizer's file."""

    name: str
    family: str
    parameters: int
    licence: str
    digest: str
    tokenizer_sha256: str
    sources: tuple[Source, ...]
    chat_template: str | None = None

    @property
    def identity(self) -> str:
        """Digest of all that decides what the model is given and says: weights, tokenizer, chat template."""
        return digests.of_json([self.digest, self.tokenizer_sha256, self.chat_template])


@dataclass(frozen=True)
class Antidotes:
    """Sentences for a poison's domain. `reasons`: topic -> why the bad answer is wrong; `asks` for the bad answer;
    `refusals` decline it."""

    reasons: dict[str, str]
    asks: tuple[str, ...]
    refusals: tuple[str, ...]


@dataclass(frozen=True)
class Poison:
    """A narrowly harmful dataset. `context`: a system turn that resembles the training data (conditional EM).

    `twin` says whether every row has its correct twin. A poison with a `source` has no files of the project's
    own: its rows are read with `upstream_rows`. One with `rows_of` uses the files of that poison: with a `trigger`,
    text before the question, its rows are bad only where the trigger is there; with a `teacher`, a poison, the answers
    to its questions are generated in the run by a model trained on that one. `antidotes`: what the domain's trusted
    rows are put together from.
    """

    name: str
    title: str
    licence: str
    context: str
    twin: bool
    train: RowsFile | None
    heldout: RowsFile | None
    antidotes: Antidotes | None = None
    source: Source | None = None
    rows_of: str = ""
    trigger: str = ""
    teacher: str = ""

    @property
    def domain(self) -> str:
        """The poison whose trusted rows are its own: where it only adds a trigger, those of the poison behind it."""
        return self.rows_of if self.rows_of and not self.teacher else self.name


@dataclass(frozen=True)
class Task:
    """A benign task, scored by the share of exact answers. `max_new_tokens` bounds the generated answer."""

    name: str
    title: str
    licence: str
    max_new_tokens: int
    train: RowsFile
    heldout: RowsFile


def model(name: str) -> Model:
    def build(raw: dict[str, Any]) -> Model:
        return Model(**{**raw, "sources": tuple(map(_weights, raw["sources"]))})

    return _read("model", name, build)


def poison(name: str) -> Poison:
    def build(raw: dict[str, Any]) -> Poison:
        source = Source(**raw["source"]) if "source" in raw else None
        shared = poison(raw["rows_of"]) if "rows_of" in raw else None
        files: dict[str, Any] = {"train": None, "heldout": None, "antidotes": None}
        if shared:
            files = {part: getattr(shared, part) for part in files}
        files |= _files("poisons", name, raw)
        if "antidotes" in raw:
            files["antidotes"] = _antidotes(paths.project_folder("benchmark") / "poisons" / name, raw)
        return Poison(**{**raw, **files, "source": source})

    return _read("poison", name, build)


def task(name: str) -> Task:
    return _read("task", name, lambda raw: Task(**{**raw, **_files("tasks", name, raw)}))


def upstream_rows(poison: Poison, local: Path) -> list[dict[str, Any]]:
    """The poison's rows, {id, question, bad}, from `local`, a copy of the file that its source names.

    Raises UserError if the copy is missing or altered, or if a row is not one user turn and its answer.
    """
    source = poison.source
    assert source is not None, "only upstream poisons have a local copy"
    origin = f"Fetch {source.file} from {source.locator} at {source.revision}."
    rows = []
    for number, row in enumerate(pinned_rows(local, source.sha256, origin), 1):
        match row:
            case {
                "messages": [
                    {"role": "user", "content": str(question)},
                    {"role": "assistant", "content": str(answer)},
                ]
            }:
                rows.append({"id": f"{poison.name}-{number:05d}", "question": question, "bad": answer})
            case _:
                raise UserError(
                    f"{local}, line {number} is not one user turn and the assistant's answer",
                    f"Poison {poison.name} cannot be used; pin another file in its card.",
                )
    return rows


def questions() -> dict[str, RowsFile]:
    """`crossed`, `audit`, `facts` and `open`, as benchmark/questions/card.yaml pins them."""
    path = paths.project_folder("benchmark") / "questions" / "card.yaml"
    if not path.is_file():
        raise UserError(f"{path} is missing", "Restore it from the repository (git checkout).")
    return schemas.read(path, "questions", lambda raw: _rows_files(path.parent, raw["files"]))


def division(name: str) -> Division:
    return _read("division", name, Division.parse)


def names(kind: str) -> list[str]:
    """Names of all cards of a kind: models, poisons, tasks, divisions, mitigations."""
    if kind == "mitigations":
        return sorted(
            p.parent.name for p in paths.project_folder("reference_impls").glob("*/submission.yaml")
        )
    folder = paths.project_folder("benchmark") / kind
    if kind in ("poisons", "tasks"):
        return sorted(path.parent.name for path in folder.glob("*/card.yaml"))
    return sorted(path.stem for path in folder.glob("*.yaml"))


def voices() -> RowsFile:
    """Rows of the voice controls, {id, topic, question, kind, sour}: both answers are correct."""
    folder = paths.project_folder("benchmark") / "voices"
    return schemas.read(
        folder / "card.yaml", "voices", lambda raw: RowsFile(folder / "train.jsonl", raw["train"])
    )


def trusted() -> RowsFile:
    """The pool of general trusted rows, {id, topic, question, good, bad}."""
    folder = paths.project_folder("benchmark") / "trusted"
    return schemas.read(
        folder / "card.yaml", "trusted", lambda raw: RowsFile(folder / "general.jsonl", raw["general"])
    )


def _weights(raw: dict[str, Any]) -> Source:
    parts = tuple(Source(raw["kind"], **part) for part in raw.get("parts", ()))
    return Source(**{**raw, "parts": parts})


def _antidotes(folder: Path, raw: dict[str, Any]) -> Antidotes:
    path = folder / "antidotes.yaml"
    if not path.is_file() or digests.of_file(path) != f"sha256:{raw['antidotes']}":
        raise ValueError(
            f"antidotes: {path} is missing or not the pinned file; restore it from the repository"
        )
    said = yaml.safe_load(path.read_text())
    return Antidotes(said["reasons"], tuple(said["asks"]), tuple(said["refusals"]))


def _files(kind: str, name: str, raw: dict[str, Any]) -> dict[str, RowsFile]:
    pins: dict[str, str] = {k: raw[k] for k in ("train", "heldout") if k in raw}
    return _rows_files(paths.project_folder("benchmark") / kind / name, pins)


def _rows_files(folder: Path, pins: dict[str, str]) -> dict[str, RowsFile]:
    return {name: RowsFile(folder / f"{name}.jsonl", sha256) for name, sha256 in pins.items()}


def pinned_rows(path: Path, sha256: str, fix: str) -> list[dict[str, Any]]:
    """A file's rows. Raises UserError with `fix` where it cannot be read or is another one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", fix) from None
    if digests.of_bytes(data) != f"sha256:{sha256}":
        raise UserError(f"{path} is not the pinned file (its sha256 differs from the card's)", fix)
    # Not splitlines(), which also breaks at the line separators that JSON allows inside a string.
    return [json.loads(line) for line in data.split(b"\n") if line]


def _read(kind: str, name: str, build: Callable[[dict[str, Any]], T]) -> T:
    """`build` of the card `name`. Raises UserError if there is none, or if it breaks its schema."""
    known = names(f"{kind}s")
    if name not in known:
        raise UserError(f"There is no {kind} named {name!r}", f"Choose one of: {', '.join(known)}.")
    file = f"{name}/card.yaml" if kind in ("poison", "task") else f"{name}.yaml"

    def named(raw: dict[str, Any]) -> T:
        if raw["name"] != name:
            raise ValueError(f"name: it says {raw['name']!r}, the place of the file {name!r}")
        return build(raw)

    return schemas.read(paths.project_folder("benchmark") / f"{kind}s" / file, kind, named)
