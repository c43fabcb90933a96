"""benchmark/ as typed, digest-checked objects, and submissions as their folders declare them.

Every card is read by `_read`, which turns a malformed file into one line that names file, field and fix. Rows are
checked against the sha256 that their card pins before anything uses them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import yaml

from emperf import digests, paths
from emperf.errors import UserError
from emperf.runtimes import Limits
from emperf.training.job import Recipe

T = TypeVar("T")


@dataclass(frozen=True)
class RowsFile:
    """A pinned JSON-lines file. `rows()` checks the digest first."""

    path: Path
    sha256: str

    def rows(self) -> list[dict[str, Any]]:
        """Raises UserError if the file is missing or is not the pinned one."""
        if not self.path.is_file():
            raise UserError(f"{self.path} is missing", "Restore it from the repository (git checkout).")
        if digests.of_file(self.path) != f"sha256:{self.sha256}":
            raise UserError(
                f"{self.path} is not the pinned file (its sha256 differs from the card's)",
                "Restore it from the repository; results with other data do not compare.",
            )
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@dataclass(frozen=True)
class Source:
    """Where upstream data or weights come from. `kind`: package, hub, path or url."""

    kind: str
    locator: str
    revision: str
    sha256: str
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

    `twin` says whether every row has its correct twin. `upstream` sources have no rows of the project's own.
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
    """A benign task. `max_new_tokens` bounds the generated answer; the score is the share of exact answers."""

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


@dataclass(frozen=True)
class Parameter:
    """A typed, bounded parameter of a submission."""

    type: str
    default: Any
    help: str = ""
    min: float | None = None
    max: float | None = None
    choices: tuple[Any, ...] = ()

    def check(self, name: str, value: Any) -> Any:
        """The value, converted. Raises ValueError with the constraint that fails."""
        kinds: dict[str, tuple[type, ...]] = {"float": (int, float), "int": (int,), "str": (str,), "bool": (bool,)}
        if isinstance(value, str) and self.type != "str":
            value = yaml.safe_load(value)
        if not isinstance(value, kinds[self.type]) or (isinstance(value, bool) and self.type != "bool"):
            raise ValueError(f"{name} must be of type {self.type}, not {value!r}")
        if self.min is not None and value < self.min:
            raise ValueError(f"{name} must be at least {self.min:g}, not {value!r}")
        if self.max is not None and value > self.max:
            raise ValueError(f"{name} must be at most {self.max:g}, not {value!r}")
        if self.choices and value not in self.choices:
            raise ValueError(f"{name} must be one of {list(self.choices)}, not {value!r}")
        return float(value) if self.type == "float" else value


@dataclass(frozen=True)
class Submission:
    """A mitigation as its folder declares it. `digest` is over the whole folder; nothing in it is executed here."""

    name: str
    title: str
    submitter: str
    scenario: str
    source: str
    folder: Path
    digest: str
    mitigation: str = ""
    image: str = ""
    needs: tuple[str, ...] = ()
    trusted_rows: int = 0
    parameters: dict[str, Parameter] = field(default_factory=dict)

    def values(self, given: dict[str, Any]) -> dict[str, Any]:
        """Every parameter's value, defaults filled in. Raises UserError for one unknown or out of bounds."""
        unknown = set(given) - set(self.parameters)
        if unknown:
            raise UserError(
                f"{self.name} has no parameter {sorted(unknown)[0]!r}",
                f"It has: {', '.join(self.parameters) or 'none'}.",
            )
        try:
            return {name: p.check(name, given.get(name, p.default)) for name, p in self.parameters.items()}
        except (ValueError, yaml.YAMLError) as error:
            raise UserError(f"{self.name}: {error}", "Choose a value inside the bounds of submission.yaml.") from None


def model(name: str) -> Model:
    path = _card("models", f"{name}.yaml")
    return _read(path, "model", lambda raw: _model(raw))


def _model(raw: dict[str, Any]) -> Model:
    return Model(**{**raw, "sources": tuple(Source(**source) for source in raw["sources"])})


def poison(name: str) -> Poison:
    path = _card("poisons", f"{name}/card.yaml")

    def build(raw: dict[str, Any]) -> Poison:
        source = Source(**raw["source"]) if raw.get("source") else None
        files = {k: RowsFile(path.parent / f"{k}.jsonl", raw[k]) if raw.get(k) else None for k in ("train", "heldout")}
        return Poison(**{**raw, **files, "source": source})

    return _read(path, "poison", build)


def task(name: str) -> Task:
    path = _card("tasks", f"{name}/card.yaml")
    return _read(
        path,
        "task",
        lambda raw: Task(
            **{**raw, **{k: RowsFile(path.parent / f"{k}.jsonl", raw[k]) for k in ("train", "heldout")}}
        ),
    )


def questions() -> dict[str, RowsFile]:
    """`paired`, `facts` and `open`, as benchmark/questions/card.yaml pins them."""
    path = _card("questions", "card.yaml")
    return _read(
        path, "questions", lambda raw: {k: RowsFile(path.parent / f"{k}.jsonl", v) for k, v in raw["files"].items()}
    )


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

    return _read(_card("divisions", f"{name}.yaml"), "division", build)


def submission(folder: Path) -> Submission:
    """The submission in `folder` (or a reference implementation by its name)."""
    if not (folder / "submission.yaml").is_file():
        reference = paths.project_folder("reference_impls") / folder
        if len(folder.parts) == 1 and (reference / "submission.yaml").is_file():
            folder = reference
        else:
            raise UserError(
                f"{folder} is no submission: it has no submission.yaml",
                "Give a folder that has one, or a name from `emperf list mitigations`; `emperf new NAME` makes one.",
            )

    def build(raw: dict[str, Any]) -> Submission:
        parameters = {
            name: Parameter(**{**spec, "choices": tuple(spec.get("choices", ()))})
            for name, spec in (raw.get("parameters") or {}).items()
        }
        entry = raw.get("mitigation", "").partition(":")[0]
        if entry and not (folder / entry).is_file():
            raise ValueError(f"mitigation names {entry}, which is not in the folder")
        for name, parameter in parameters.items():
            parameter.check(name, parameter.default)
        return Submission(
            **{
                **raw,
                "needs": tuple(raw.get("needs") or ()),
                "parameters": parameters,
                "folder": folder.resolve(),
                "digest": digests.of_folder(folder),
            }
        )

    return _read(folder / "submission.yaml", "submission", build)


def names(kind: str) -> list[str]:
    """Names of all cards of a kind: models, poisons, tasks, divisions, mitigations."""
    if kind == "mitigations":
        return sorted(p.parent.name for p in paths.project_folder("reference_impls").glob("*/submission.yaml"))
    folder = paths.project_folder("benchmark") / kind
    return sorted(p.stem if p.stem != "card" else p.parent.name for p in folder.glob("**/*.yaml"))


def schema(name: str) -> dict[str, Any]:
    path = paths.project_folder("spec") / "schemas" / f"{name}.schema.json"
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def check(name: str, value: Any) -> None:
    """Raises ValueError with the first place where `value` breaks spec/schemas/NAME.schema.json."""
    validator = jsonschema.Draft202012Validator(schema(name))
    worst = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if worst is not None:
        place = ".".join(str(part) for part in worst.absolute_path) or "the top level"
        raise ValueError(f"{place}: {worst.message}")


def _card(kind: str, file: str) -> Path:
    path = paths.project_folder("benchmark") / kind / file
    if not path.is_file():
        known = ", ".join(names(kind))
        wanted = file.removesuffix("/card.yaml").removesuffix(".yaml")
        raise UserError(f"There is no {kind.removesuffix('s')} named {wanted!r}", f"Choose one of: {known}.")
    return path


def _read(path: Path, schema_name: str, build: Callable[[dict[str, Any]], T]) -> T:
    try:
        raw = yaml.safe_load(path.read_text())
        check(schema_name, raw)
        return build(raw)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where} is not valid YAML", "Mend the syntax there.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: {error}", f"See spec/schemas/{schema_name}.schema.json for what is allowed.") from None
