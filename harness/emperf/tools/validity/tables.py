"""The experiments' tables, as docs/validity.md shows them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from emperf.catalog.sets import DOMAIN, OOD
from emperf.report.numbers import UNDEFINED, nats
from emperf.scoring import poisons
from emperf.scoring.effects import ACT, INTERACTION, VOICE
from emperf.scoring.poisons import PoisonScores
from emperf.tools.measured import Measured

Json = dict[str, Any]


TWO_BY_TWO = ("setting", "trained on", "act", "act, raw mean", "voice", "interaction", "in-domain act")


def two_by_two(found: Mapping[str, PoisonScores], command: str) -> Measured:
    """A row a model of every setting, its effects out of domain and its act effect in-domain."""
    rows = []
    for name, scores in found.items():
        for who, model in {**scores.models, **scores.controls}.items():
            outside = poisons.of_model(scores, model[OOD], OOD)
            inside = poisons.of_model(scores, model[DOMAIN], DOMAIN)[ACT] if DOMAIN in model else None
            shown = (outside[ACT], outside["raw"], outside[VOICE], outside[INTERACTION], inside)
            rows.append((name, who, *map(nats, shown)))
    return Measured(command, today(), TWO_BY_TWO, [False] * 2 + [True] * 5, rows)


def decision(decided: Mapping[str, Json], command: str) -> Measured:
    """A row a setting, what the rule asks of it, and its verdict."""
    asked = list(dict.fromkeys(what for entry in decided.values() for what in entry["tests"]))
    columns = ("setting", *(HEADS.get(what, f"beyond {what}") for what in asked), "finds", "EM")
    rows = []
    for name, entry in decided.items():
        tests = entry["tests"]
        shown = [f"{nats(tests[w])}{' *' * tests[w]['below']}" if w in tests else UNDEFINED for w in asked]
        finds = tests.get("twin", {}).get("finds")
        last = UNDEFINED if finds is None else f"{finds:.3f}"
        rows.append((name, *shown, last, "yes" if entry["shows EM"] else "no"))
    numbers = [False, *(True for _ in asked), True, False]
    return Measured(command, today(), columns, numbers, rows)


def today() -> str:
    """The date, universal time."""
    return time.strftime("%Y-%m-%d", time.gmtime())


HEADS = {"learned": "learned in-domain", "twin": "beyond its twin"}
