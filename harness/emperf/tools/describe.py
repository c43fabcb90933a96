"""`emperf show`: all about one entry of the catalogue, found by its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from emperf import catalog
from emperf.catalog import Division, Parameter, Poison, Source, Task
from emperf.catalog.prepare import prepared
from emperf.core import paths
from emperf.core.errors import UserError
from emperf.report.tables import GAP, Column, FittedTable, name_values
from emperf.tools.listing import Record, text

PARAMETERS = ("parameter", "type", "default", "bounds", "what it is")
# A mitigation that names no model families can handle all.
ANY = "any"


def described(name: str) -> list[Record]:
    """A record for each kind that has an entry of this name. A mitigation may also be given by its folder.

    Raises UserError where there is none.
    """
    records = [describe(name) for kind, describe in OF_KIND.items() if name in catalog.listed(kind)]
    if not records and (Path(name) / "submission.yaml").is_file():
        return [of_mitigation(name)]
    if not records:
        raise _unknown(name)
    return records


def _unknown(name: str) -> UserError:
    every = [known for kind in OF_KIND for known in catalog.listed(kind)]
    near = difflib.get_close_matches(name, every)
    fix = (
        f"Did you mean {' or '.join(near)}?"
        if near
        else f"emperf list has all names: of {', '.join(OF_KIND)}."
    )
    return UserError(f"Nothing is named {name!r}", fix)


def of_mitigation(name: str) -> Record:
    card = catalog.submission(Path(name))
    readme = card.folder / "README.md"
    return {
        "kind": "mitigation",
        "name": card.name,
        "title": card.title,
        "submitter": card.submitter,
        "scenario": card.scenario,
        "source": " ".join(card.source.split()),
        "needs": list(card.needs),
        "trusted_rows": card.trusted,
        "families": list(card.families),
        "parameters": {key: _parameter(parameter) for key, parameter in card.parameters.items()},
        "controls": card.controls,
        "sweep": list(card.sweep),
        "entry": card.image or card.mitigation,
        "digest": card.digest,
        "folder": str(card.folder),
        "readme": str(readme) if readme.is_file() else None,
    }


def _parameter(parameter: Parameter) -> Record:
    return asdict(parameter) | {"choices": list(parameter.choices)}


def of_poison(name: str) -> Record:
    card = catalog.poison(name)
    antidotes = card.antidotes and {key: len(sentences) for key, sentences in asdict(card.antidotes).items()}
    return {
        "kind": "poison",
        "name": name,
        "title": card.title,
        "licence": card.licence,
        "context": card.context,
        "twin": card.twin,
        "rows_of": card.rows_of or None,
        "trigger": card.trigger or None,
        "teacher": card.teacher or None,
        "antidotes": antidotes,
        "source": _source(card.source) if card.source else None,
        **_rows(card),
        "folder": str(_benchmark() / "poisons" / name),
        "divisions": [one.name for one in _divisions() if name in one.poisons],
    }


def of_task(name: str) -> Record:
    card = catalog.task(name)
    return {
        "kind": "task",
        "name": name,
        "title": card.title,
        "licence": card.licence,
        "max_new_tokens": card.max_new_tokens,
        **_rows(card),
        "folder": str(_benchmark() / "tasks" / name),
        "divisions": [one.name for one in _divisions() if name in one.tasks],
    }


def _source(source: Source) -> Record:
    """Without the fields that are empty."""
    given = {key: value for key, value in asdict(source).items() if value}
    return given | ({"parts": [_source(part) for part in source.parts]} if source.parts else {})


def _rows(card: Poison | Task) -> Record:
    """Number of rows and digest of each file that a dataset has."""
    files = {"train": card.train, "heldout": card.heldout}
    return {
        name: {"rows": len(file.rows()), "sha256": file.sha256} if file else None
        for name, file in files.items()
    }


def of_model(name: str) -> Record:
    card = catalog.model(name)
    try:
        folder, fix = str(prepared(card)), None
    except UserError as error:
        folder, fix = None, error.fix
    return {
        "kind": "model",
        "name": name,
        "family": card.family,
        "parameters": card.parameters,
        "licence": card.licence,
        "digest": card.digest,
        "tokenizer_sha256": card.tokenizer_sha256,
        "chat_template": card.chat_template,
        "sources": [_source(source) for source in card.sources],
        "prepared": folder,
        "to_prepare": fix,
        "card": str(_benchmark() / "models" / f"{name}.yaml"),
        "divisions": [one.name for one in _divisions() if name == one.model],
    }


def of_division(name: str) -> Record:
    card = catalog.division(name)
    fields = {key: value for key, value in asdict(card).items() if key != "name"}
    return {
        "kind": "division",
        "name": name,
        **fields,
        "proxy": " ".join(card.proxy.split()),
        "card": str(_benchmark() / "divisions" / f"{card.name}.yaml"),
    }


def _benchmark() -> Path:
    return paths.project_folder("benchmark")


def _divisions() -> list[Division]:
    return [catalog.division(name) for name in catalog.names("divisions")]


def of_judge(name: str) -> Record:
    card = catalog.judge(name)
    return {
        "kind": "judge",
        **card.json(),
        "url": card.url or None,
        "scale": asdict(card.scale),
        "threshold": card.threshold,
        "most_missing": card.most_missing,
        "prompts": dict(card.prompts),
        "origin": card.origin,
    }


OF_KIND: dict[str, Callable[[str], Record]] = {
    "mitigations": of_mitigation,
    "poisons": of_poison,
    "tasks": of_task,
    "models": of_model,
    "divisions": of_division,
    "judges": of_judge,
}


def print_described(record: Record, console: Console) -> None:
    """Names and values; a mitigation's parameters as a table of their own."""
    console.print(Text(f"{record['name']}: {record['kind']}", "bold"))
    own_table = record["kind"] == "mitigation"
    shown = {
        key.replace("_", " "): _value(record, key)
        for key, value in record.items()
        if value is not None and key not in ("kind", "name") and not (own_table and key == "parameters")
    }
    room = console.width - max(map(len, shown)) - GAP
    long = {name: value for name, value in shown.items() if max(map(len, value.split()), default=0) > room}
    console.print(
        name_values({name: shown[name] for name in shown if name not in long}, "dim"), highlight=False
    )
    for name, value in long.items():
        # Below its name a digest has the room to stay whole.
        console.print(Text(name, "dim"))
        console.print(Padding(Text(value), (0, 0, 0, GAP)), highlight=False)
    if own_table and record["parameters"]:
        rows = [_parameter_row(name, parameter) for name, parameter in record["parameters"].items()]
        console.print()
        columns = [Column(head, number=head == "default") for head in PARAMETERS]
        console.print(FittedTable(columns, rows, indent=0))


def _value(record: Record, key: str) -> str:
    value = record[key]
    if key == "families" and not value:
        return ANY
    if key == "cure":
        value = _changes(record["recipe"], value)
    if key == "organisms":
        value = {name: _changes(record["recipe"], recipe) for name, recipe in value.items()}
    return text(value)


def _changes(recipe: Record, other: Record) -> Record:
    """What of another recipe differs from the division's own."""
    return {key: value for key, value in other.items() if value != recipe[key]}


def _parameter_row(name: str, parameter: Record) -> tuple[str, ...]:
    return name, parameter["type"], text(parameter["default"]), bounds(parameter), parameter["help"] or "-"


def bounds(parameter: Record) -> str:
    """`0 to 100`, `at least 1`, the choices, or a dash."""
    least, most = parameter["min"], parameter["max"]
    if parameter["choices"]:
        return text(parameter["choices"])
    if least is not None and most is not None:
        return f"{least:g} to {most:g}"
    if least is not None:
        return f"at least {least:g}"
    return "-" if most is None else f"at most {most:g}"
