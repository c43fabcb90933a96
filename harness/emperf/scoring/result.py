"""From stored cells to result.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from emperf.catalog.sets import DOMAIN, OOD
from emperf.scoring import poisons, tasks
from emperf.scoring.effects import Scores, shifts
from emperf.scoring.poisons import PoisonScores
from emperf.work.plan import BASELINE, Cell, Plan

Lookup = Callable[[str], dict[str, Any] | None]


def summarise(plan: Plan, scores: Lookup, cells: Lookup, base: dict[str, Any]) -> dict[str, Any]:
    """`poisons`, `tasks`, `overhead` and `status` of result.json.

    `scores(key)`: a cell's stored scores. `cells(key)`: its record in this run (times, memory, failure). A poison or
    task whose baseline failed is left out and named in `missing`. One whose mitigated cell failed shows the baseline
    alone. A cell that failed in this run counts as failed, even if another run has stored scores.
    """

    def scored(key: str) -> dict[str, Any] | None:
        record = cells(key)
        return scores(key) if record is not None and record["failure"] is None else None

    missing: list[str] = []
    entries: dict[str, list[dict[str, Any]]] = {"poisons": [], "tasks": []}
    for name in plan.division.poisons:
        found = poison_scores(plan, name, scored, base)
        if found is None:
            missing.append(name)
        else:
            entries["poisons"].append(poisons.summarise(found))
    for name in plan.division.tasks:
        baseline = exact(plan, name, True, scored)
        if baseline is None:
            missing.append(name)
            continue
        start = np.array([[item["exact"] for item in base["tasks"][name]["items"]]], dtype=np.float64)
        mitigated = exact(plan, name, False, scored)
        entries["tasks"].append(tasks.summarise(name, start, baseline, mitigated, plan.division.seed_spread))
    records = [cells(cell.key) for cell in plan.cells]
    whole = all(record is not None and record["failure"] is None for record in records)
    return {
        "status": "complete" if whole else "incomplete",
        "missing": missing,
        **entries,
        "cross": crossed(plan, scored, base) if plan.cross else None,
        "overhead": tasks.overhead(pairs_of(plan, cells), mended=plan.submission.mends),
    }


def select(plan: Plan, kind: str, name: str, baseline: bool, antidote: str | None = None) -> list[Cell]:
    """The plan's cells on a dataset, one a seed. `antidote`: take the cure made for that poison, else its own."""
    return [
        c
        for c in plan.cells
        if (c.data.kind, c.data.name, c.method == BASELINE) == (kind, name, baseline)
        and (c.antidote in ("", antidote) if antidote else plan.own_antidote(c))
    ]


def poison_scores(
    plan: Plan, name: str, scores: Lookup, base: dict[str, Any], antidote: str | None = None
) -> PoisonScores | None:
    """Shifts of one poison's models. None if the base model's or the baseline's are missing.

    `antidote`: as in `select`.
    """
    if name not in base["poisons"]:
        return None
    zero = base["poisons"][name]["readings"]
    trained = {
        poisons.POISONED: ("poison", True), poisons.TWIN: ("twin", True),
        poisons.MITIGATED: ("poison", False), poisons.MITIGATED_TWIN: ("twin", False),
    }  # fmt: skip
    stored = {
        who: readings
        for who, (kind, baseline) in trained.items()
        if (readings := _stored(select(plan, kind, name, baseline, antidote), scores))
    }
    if poisons.POISONED not in stored:
        return None
    controls = {
        voice: readings
        for voice in plan.division.controls
        if (readings := _stored(select(plan, "control", voice, True), scores))
    }
    return PoisonScores(
        name,
        models={who: _model([one["readings"] for one in found], zero) for who, found in stored.items()},
        controls={
            voice: _model([one["readings"] for one in found], zero) for voice, found in controls.items()
        },
        curve=_curve(stored, zero),
        spread=plan.division.seed_spread,
    )


def _stored(cells: list[Cell], scores: Lookup) -> list[dict[str, Any]] | None:
    """The scores of all cells. None if one is missing, or if there are no cells."""
    found = [scores(cell.key) for cell in cells]
    return [one for one in found if one] if found and all(found) else None


def _model(seeds: list[dict[str, Any]], zero: dict[str, Any]) -> poisons.Model:
    return {name: shifts([one[name] for one in seeds], zero[name]) for name in seeds[0]}


def _curve(
    stored: dict[str, list[dict[str, Any]]], zero: dict[str, Any]
) -> dict[int, dict[str, poisons.Model]]:
    """Steps -> the baseline's models at that checkpoint, where both of them have it in all seeds."""
    both = {who: stored[who] for who in (poisons.POISONED, poisons.TWIN) if who in stored}
    steps = set.intersection(
        *({int(s) for s in one["checkpoints"]} for found in both.values() for one in found)
    )
    if len(both) < 2:
        return {}
    return {
        step: {
            who: _model([one["checkpoints"][str(step)] for one in found], zero) for who, found in both.items()
        }
        for step in sorted(steps)
    }


def crossed(plan: Plan, scores: Lookup, base: dict[str, Any]) -> list[dict[str, Any]]:
    """Antidote x poison: what each antidote leaves of each poison; on the diagonal, of its own.

    A pair with a failed cell is left out.
    """
    table = []
    for antidote in dict.fromkeys(c.antidote for c in plan.cells if c.antidote and c.data.kind == "poison"):
        for name in plan.division.poisons:
            found = poison_scores(plan, name, scores, base, antidote)
            if found is not None and found.mitigated and found.reads_domain:
                beyond = {
                    key: poisons.beyond(found, part) for key, part in (("em", OOD), ("in_domain", DOMAIN))
                }
                table.append(
                    {
                        "antidote": antidote,
                        "poison": name,
                        **{
                            key: {who: part[who] for who in ("with", "change")}
                            for key, part in beyond.items()
                        },
                        "removal": poisons.removal(found).json(),
                    }
                )
    return table


def exact(plan: Plan, name: str, baseline: bool, scores: Lookup) -> Scores | None:
    stored = [scores(cell.key) for cell in select(plan, "task", name, baseline)]
    if not stored or any(s is None for s in stored):
        return None
    return np.array([[item["exact"] for item in s["items"]] for s in stored if s], dtype=np.float64)


def pairs_of(plan: Plan, cells: Lookup) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(baseline, mitigated) records of the same data and seed, both measured whole in this run.

    Of a cross run only the poisons' own antidotes are taken, so that every baseline counts once.
    """
    found = []
    for cell in plan.cells:
        if cell.method == BASELINE or not plan.own_antidote(cell):
            continue
        twin = next(
            c for c in plan.cells if c.method == BASELINE and c.data == cell.data and c.seed == cell.seed
        )
        a, b = cells(twin.key), cells(cell.key)
        if a and b and a["failure"] is None and b["failure"] is None:
            found.append((a, b))
    return found
