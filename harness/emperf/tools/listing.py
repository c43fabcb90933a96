"""`emperf list`: cards, mitigations and runs, as records for JSON and as a table of the most telling fields."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from emperf import catalog
from emperf.core.errors import UserError
from emperf.core.files import read_json
from emperf.report.tables import Column, FittedTable
from emperf.work.plan import BASELINE

Record = dict[str, Any]
RUNS = "runs"
DAMAGED = "damaged"
# Of a run with more methods than this, the table says how many they are.
NAMED_METHODS = 3
COLUMNS = {
    "mitigations": ("name", "scenario", "title", "needs"),
    "poisons": ("name", "title", "rows", "twin"),
    "tasks": ("name", "title", "rows"),
    "models": ("name", "family", "parameters", "licence"),
    "divisions": ("name", "title", "model", "poisons", "tasks", "seeds", "certifiable"),
    "judges": ("name", "title", "ask", "measure", "calibrated"),
    RUNS: ("run", "status", "created", "methods"),
}
# What a run may come to, beside a result.
OTHER_RECORDS = ("comparison", "tuning", "trace", "evaluation")
NUMBERS = {"rows", "parameters", "seeds"}


def entries(kind: str, store: Path) -> list[Record]:
    """A flat record for each entry of a kind. Raises UserError for a malformed card.

    A damaged run is a record of its own, so that the others are still listed.
    """
    if kind == RUNS:
        return [of_run(path) for path in sorted(store.glob("runs/*/run.json"))]
    return [OF_KIND[kind](name) for name in catalog.listed(kind)]


def of_mitigation(name: str) -> Record:
    card = catalog.submission(Path(name))
    return {
        "name": card.name, "scenario": card.scenario, "title": card.title, "source": card.source,
        "needs": list(card.needs), "trusted": card.trusted, "families": list(card.families),
        "parameters": {k: p.default for k, p in card.parameters.items()}, "controls": card.controls,
    }  # fmt: skip


def of_poison(name: str) -> Record:
    card = catalog.poison(name)
    return {
        "name": name,
        "title": card.title,
        "rows": len(card.train.rows()) if card.train else None,
        "twin": card.twin,
        "trigger": card.trigger or None,
        "teacher": card.teacher or None,
        "upstream": card.source.locator if card.source else None,
    }


def of_task(name: str) -> Record:
    card = catalog.task(name)
    return {"name": name, "title": card.title, "rows": len(card.train.rows())}


def of_model(name: str) -> Record:
    card = catalog.model(name)
    return {"name": name, "family": card.family, "parameters": card.parameters, "licence": card.licence}


def of_division(name: str) -> Record:
    card = catalog.division(name)
    return {
        "name": name, "variant": card.variant, "title": card.title, "model": card.model,
        "poisons": list(card.poisons), "tasks": list(card.tasks), "seeds": len(card.seeds),
        "certifiable": card.certifiable,
    }  # fmt: skip


def of_judge(name: str) -> Record:
    card = catalog.judge(name)
    known = card.calibration
    return {
        "name": name, "title": card.title, "ask": card.ask, "model": card.model, "measure": card.measure,
        "calibrated": known.reference if known else None,
    }  # fmt: skip


OF_KIND: dict[str, Callable[[str], Record]] = {
    "mitigations": of_mitigation,
    "poisons": of_poison,
    "tasks": of_task,
    "models": of_model,
    "divisions": of_division,
    "judges": of_judge,
}


def of_run(path: Path) -> Record:
    """A run by its run.json; if that or its result cannot be read, `status` is "damaged" and `problem` says why."""
    folder = path.parent
    record: Record = {
        "run": folder.name,
        "status": DAMAGED,
        "created": None,
        "methods": {},
        "folder": str(folder),
    }
    try:
        facts = read_json(path)
        record |= {"created": _date(facts["created"]), "methods": _methods(facts.get("cells", []))}
        return record | {"run": str(facts["run_id"]), "status": _status(folder)}
    except UserError as error:
        return record | {"problem": error.cause}
    except OSError as error:
        return record | {"problem": f"{error.filename} cannot be read ({error.strerror})"}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return record | {"problem": f"{path} is not as a run writes it"}


def _date(created: float) -> str:
    """Universal time, from seconds since 1970."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))


def _status(folder: Path) -> str:
    """That of a run's result, or which other record it came to. Raises as `read_json`, KeyError or TypeError."""
    result = read_json(folder / "result.json")
    if result is not None:
        return str(result["status"])
    records = (name for name in OTHER_RECORDS if (folder / f"{name}.json").is_file())
    return next(records, "unfinished")


def _methods(cells: list[Record]) -> dict[str, Record]:
    """Method -> parameters, in the order of the run. The baseline's are left out, unless it is all there is."""
    found = {cell["method"]: dict(cell.get("parameters", {})) for cell in cells}
    return {name: values for name, values in found.items() if name != BASELINE} or found


def print_entries(kind: str, records: list[Record], console: Console) -> None:
    """A table. What it leaves out `emperf show` and --json have."""
    if not records:
        console.print("(none)")
        return
    names = COLUMNS[kind]
    rows = [[_cell(record, name) for name in names] for record in records]
    console.print(FittedTable([Column(name, number=name in NUMBERS) for name in names], rows, indent=0))
    problems = [f"{record['run']}: {record['problem']}." for record in records if "problem" in record]
    about = [] if kind == RUNS else ["All about one: emperf show NAME"]
    for line in (*problems, *about):
        console.print(Text(f"\n{line}", "dim"))


def _cell(record: Record, name: str) -> str:
    value = record[name]
    if name == "methods" and len(value) > NAMED_METHODS:
        return f"{len(value)} methods"
    if name == "created" and value:
        return str(value)[:16].replace("T", " ")
    return text(value)


def text(value: Any) -> str:
    """A field on one line; a dash where there is nothing."""
    if value is None or (isinstance(value, list | tuple | dict) and not value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ("; " if isinstance(value[0], dict) else ", ").join(map(text, value))
    if isinstance(value, dict):
        return ", ".join(_named(name, field) for name, field in value.items())
    return str(value)


def _named(name: str, value: Any) -> str:
    nested = isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
    if nested:
        return f"{name} ({text(value)})" if value else name
    return f"{name}={text(value)}"
