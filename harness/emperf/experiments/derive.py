"""A record derived again from the store, and where a file differs from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emperf.core.errors import UserError
from emperf.execute.store import UnitStore
from emperf.experiments import evaluate
from emperf.experiments.about import again
from emperf.experiments.conclude import CERTIFIABLE
from emperf.experiments.rescore import derive

Json = dict[str, Any]
MOST_SHOWN = 5


def checked(kind: str, found: Json, folder: Path) -> tuple[Json, list[str]]:
    """(the record as the store gives it, what in the file differs). `kind`: result, comparison or tuning; `found`: the
    file's content, which keeps its schema.

    Raises UserError where the store has not what the record stands on.
    """
    said, plans, results = again(folder)
    if kind != said:
        raise UserError(f"{folder / 'run.json'} is of a {said}, not of a {kind}", "Run it again.")
    lacking = any(results.record(cell.key) is None for plan in plans.values() for cell in plan.cells)
    if kind == "result" and lacking:
        raise UserError(
            f"The store of {folder.name} has not all readings any more",
            "Give the same command as before: it makes again what is missing.",
        )
    fresh = json.loads(json.dumps(derive(kind, plans, results)))
    wrong = list(differences(found, fresh))
    docker = all(cell.place.startswith(f"{CERTIFIABLE},") for plan in plans.values() for cell in plan.cells)
    if (found["runtime"]["runtime"] == CERTIFIABLE) != docker:
        wrong.append("runtime.runtime")
    return found | fresh, wrong


def evaluation_checked(found: Json, folder: Path) -> tuple[Json, list[str]]:
    """The same of an evaluation."""
    facts = evaluate.facts_in(folder)
    fresh = json.loads(json.dumps(evaluate.derived(facts, UnitStore(folder.parents[1]))))
    return found | fresh, list(differences(found, fresh))


def differences(found: Any, fresh: Any, place: str = "") -> Iterator[str]:
    """Dotted places where `found` has not what `fresh` has."""
    if isinstance(fresh, dict) and isinstance(found, dict):
        for key, value in fresh.items():
            yield from differences(found.get(key), value, f"{place}.{key}" if place else key)
    elif isinstance(fresh, list) and isinstance(found, list) and len(fresh) == len(found):
        for number, value in enumerate(fresh):
            yield from differences(found[number], value, f"{place}.{number}")
    elif found != fresh:
        yield place


def shown(wrong: list[str]) -> str:
    """A few of the places, in one line."""
    more = f" and {len(wrong) - MOST_SHOWN} more" if len(wrong) > MOST_SHOWN else ""
    return ", ".join(wrong[:MOST_SHOWN]) + more
