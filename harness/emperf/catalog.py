"""benchmark/ as typed objects. Rows are checked against the sha256 in their card before any use."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from emperf import digests, paths, schemas
from emperf.errors import UserError
from emperf.runtimes import Limits
from emperf.schemas import check
from emperf.submissions import Parameter, Submission, submission
from emperf.training.job import Recipe

__all__ = ["Parameter", "Submission", "check", "submission"]

T = TypeVar("T")


@dataclass(frozen=True)
class RowsFile:
    """A pinned JSON-lines file. `rows()` checks the digest first."""

    path: Path
    sha256: str

    def rows(self) -> list[dict[str, Any]]:
        """Raises UserError if the file is missing or is not the pinned one."""
        return _pinned_rows(
            self.path, self.sha256, "Restore it from the repository; results with other data do not compare."
        )


@dataclass(frozen=True)
class Source:
    """Where upstream data or weights come from. `kind`: package, hub or path for weights, git for rows."""

    kind: str
    locator: str
    revision: str = ""
    sha256: str = ""
    file: str = ""


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


@dataclass(frozen=True)
class Poison:
    """A narrowly harmful dataset. `context`: a system turn that resembles the training data (conditional EM).

    `twin` says whether every row has its correct twin. A poison with a `source` has no files of the project's
    own: its rows are read with `upstream_rows`.
    """

    name: str
    title: str
    licence: str
    context: str
    twin: bool
    train: RowsFile | None
    heldout: RowsFile | None
    source: Source | None = None


@dataclass(frozen=True)
class Task:
    """A benign task, scored by the share of exact answers. `max_new_tokens` bounds the generated answer."""

    name: str
    title: str
    licence: str
    max_new_tokens: int
    train: RowsFile
    heldout: RowsFile


@dataclass(frozen=True)
class Sizes:
    """How many items of each kind a division uses: the first n of the pinned file."""

    train_rows: int
    paired: int
    conditional: int
    facts: int
    in_domain: int
    task_heldout: int
    open: int


@dataclass(frozen=True)
class Division:
    """The pinned set within which results compare."""

    name: str
    variant: str
    title: str
    proxy: str
    certifiable: bool
    model: str
    poisons: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    trusted_rows: int
    sizes: Sizes
    recipe: Recipe
    limits: Limits
    digest: str = ""


def model(name: str) -> Model:
    def build(raw: dict[str, Any]) -> Model:
        return Model(**{**raw, "sources": tuple(Source(**source) for source in raw["sources"])})

    return _read("model", name, build)


def poison(name: str) -> Poison:
    def build(raw: dict[str, Any]) -> Poison:
        source = Source(**raw["source"]) if "source" in raw else None
        return Poison(
            **{"train": None, "heldout": None, **raw, **_files("poisons", name, raw), "source": source}
        )

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
    for number, row in enumerate(_pinned_rows(local, source.sha256, origin), 1):
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
    """`paired`, `facts` and `open`, as benchmark/questions/card.yaml pins them."""
    path = paths.project_folder("benchmark") / "questions" / "card.yaml"
    if not path.is_file():
        raise UserError(f"{path} is missing", "Restore it from the repository (git checkout).")
    return schemas.read(path, "questions", lambda raw: _rows_files(path.parent, raw["files"]))


def division(name: str) -> Division:
    def build(raw: dict[str, Any]) -> Division:
        limits = raw["limits"]
        return Division(
            **{
                **raw,
                "poisons": tuple(raw["poisons"]),
                "tasks": tuple(raw["tasks"]),
                "seeds": tuple(raw["seeds"]),
                "sizes": Sizes(**raw["sizes"]),
                "recipe": Recipe.parse(raw["recipe"]),
                "limits": Limits(
                    wall_s=limits["wall_s"],
                    memory_bytes=round(limits["memory_gb"] * 1e9),
                    cpus=limits["cpus"],
                    pids=limits["pids"],
                    output_bytes=round(limits["output_mb"] * 1e6),
                    tmp_bytes=round(limits["tmp_mb"] * 1e6),
                ),
                "digest": digests.of_json(raw),
            }
        )

    return _read("division", name, build)


def names(kind: str) -> list[str]:
    """Names of all cards of a kind: models, poisons, tasks, divisions, mitigations."""
    if kind == "mitigations":
        return sorted(
            p.parent.name for p in paths.project_folder("reference_impls").glob("*/submission.yaml")
        )
    folder = paths.project_folder("benchmark") / kind
    return sorted(p.stem if p.stem != "card" else p.parent.name for p in folder.glob("**/*.yaml"))


def _files(kind: str, name: str, raw: dict[str, Any]) -> dict[str, RowsFile]:
    pins: dict[str, str] = {k: raw[k] for k in ("train", "heldout") if k in raw}
    return _rows_files(paths.project_folder("benchmark") / kind / name, pins)


def _rows_files(folder: Path, pins: dict[str, str]) -> dict[str, RowsFile]:
    return {name: RowsFile(folder / f"{name}.jsonl", sha256) for name, sha256 in pins.items()}


def _pinned_rows(path: Path, sha256: str, fix: str) -> list[dict[str, Any]]:
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
