"""Tables of several methods, from what is stored: what is whole for all, a row a method, and what needs all rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emperf.catalog import Division
from emperf.core.errors import UserError
from emperf.execute.results import Results
from emperf.scoring import poisons, result, tasks
from emperf.scoring.effects import Scores
from emperf.scoring.estimate import holm
from emperf.scoring.poisons import PoisonScores
from emperf.scoring.pooled import pool, ranks
from emperf.work.plan import Cell, Plan


def complete(division: Division, plans: Sequence[Plan], results: Results) -> Division | None:
    """What of the division is whole for every method: the datasets of the first seed, and the further seeds that have
    all of them. None if there is no poison yet."""
    every = {cell.key: cell for plan in plans for cell in plan.cells}.values()

    def whole(seed: int, name: str) -> bool:
        return all(results.record(cell.key) is not None for cell in of_block(every, seed, name))

    first, *others = division.seeds
    names = [name for name in (*division.poisons, *division.tasks) if whole(first, name)]
    seeds = (first, *(seed for seed in others if all(whole(seed, name) for name in names)))
    left = replace(
        division,
        poisons=tuple(p for p in division.poisons if p in names),
        tasks=tuple(t for t in division.tasks if t in names),
        seeds=seeds,
    )
    return left if left.poisons else None


def heading(part: Division, plans: dict[str, Plan], results: Results) -> dict[str, Any]:
    """What a table says of itself. `part`: what of the division it holds."""
    return {
        "run_id": results.store.run_id,
        "division": {
            "name": part.name,
            "digest": part.digest,
            "proxy": part.proxy,
            "shows_em": part.shows_em,
        },
        "model": part.model,
        "poisons": list(part.poisons),
        "tasks": list(part.tasks),
        "seeds": list(part.seeds),
        "cells": counted(plans, results),
    }


def of_block(cells: Iterable[Cell], seed: int, name: str) -> list[Cell]:
    return [cell for cell in cells if (cell.seed, cell.data.name) == (seed, name)]


def counted(plans: dict[str, Plan], results: Results) -> dict[str, int]:
    every = {cell.key for plan in plans.values() for cell in plan.cells}
    return {"done": sum(results.record(key) is not None for key in every), "planned": len(every)}


def unfinished(plans: dict[str, Plan], results: Results, what: str) -> UserError:
    cells = counted(plans, results)
    return UserError(
        f"{cells['done']} of {cells['planned']} cells are done, and {what}",
        "Run the same command again: it goes on from there.",
    )


def narrowed(plan: Plan, part: Division) -> Plan:
    names = (*part.poisons, *part.tasks, *part.controls)
    cells = tuple(c for c in plan.cells if c.data.name in names and c.seed in part.seeds)
    return replace(plan, division=part, cells=cells)


def scored(results: Results) -> result.Lookup:
    def found(key: str) -> dict[str, Any] | None:
        record = results.record(key)
        return results.scores(key) if record is not None and record["failure"] is None else None

    return found


def before(plan: Plan, results: Results) -> dict[str, Any] | None:
    """The baseline's own line, all poisons pooled; with the voice controls where there is one poison."""
    base, lookup = results.base(), scored(results)
    found = [result.poison_scores(plan, name, lookup, base) for name in plan.division.poisons]
    plain = [
        replace(
            one,
            models={who: one.models[who] for who in (poisons.POISONED, poisons.TWIN) if who in one.models},
        )
        for one in found
        if one is not None
    ]
    return poisons.summarise(pool(plain, "all")) if len(plain) == len(found) else None


@dataclass(frozen=True)
class Method:
    """A method's row before it stands beside others. `scores`: all poisons pooled, None where a cell failed."""

    row: dict[str, Any]
    scores: PoisonScores | None
    ratios: dict[str, dict[str, float]]


def method(name: str, plan: Plan, results: Results) -> Method:
    """One method: its pooled scores, null where any cell of it failed, and its costs over the cells that did not."""
    base, lookup = results.base(), scored(results)
    found = [result.poison_scores(plan, poison, lookup, base) for poison in plan.division.poisons]
    usable = [s for s in found if s is not None and s.mitigated and s.reads_domain]
    records = [results.record(cell.key) for cell in plan.cells if cell.submission == plan.submission.digest]
    failures = [
        record["failure"] | {"cell": record["label"]} for record in records if record and record["failure"]
    ]
    whole = not failures and len(usable) == len(found)
    scores = pool(usable, "all") if whole else None
    pairs, mended = result.pairs_of(plan, results.record), plan.submission.mends
    row = {
        "name": name,
        "scenario": plan.submission.scenario,
        "parameters": plan.parameters,
        "digest": plan.submission.digest,
        "failures": failures,
        "poisons": poisons.summarise(scores) if scores else None,
        "tasks": all_tasks(plan, lookup, base) if not failures else None,
    }
    costs = {cost: tasks.ratios(pairs, field, mended=mended) for cost, field in tasks.FIELDS.items()}
    return Method(row, scores, costs)


def side_by_side(methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Rows with what needs all methods: Holm's p-values, rank ranges, costs with a shared level."""
    whole = [m for m in methods if m.scores is not None]
    removals = [poisons.removal(m.scores) for m in whole if m.scores is not None]
    adjusted = dict(zip([m.row["name"] for m in whole], holm([r.p for r in removals]), strict=True))
    above = {m.row["name"]: r.net.above_zero for m, r in zip(whole, removals, strict=True)}
    ranges = dict(
        zip([m.row["name"] for m in whole], ranks([m.scores for m in whole if m.scores]), strict=True)
    )
    costs = {cost: tasks.shared_level([m.ratios[cost] for m in methods]) for cost in tasks.FIELDS}
    return [
        m.row
        | {
            "overhead": {cost: found[i].json() for cost, found in costs.items()},
            "adjusted_p": round(adjusted[m.row["name"]], 6) if m in whole else None,
            "selective": adjusted[m.row["name"]] <= 0.05 and above[m.row["name"]] if m in whole else None,
            "rank": ranges[m.row["name"]] if m in whole else None,
        }
        for i, m in enumerate(methods)
    ]


def all_tasks(plan: Plan, lookup: result.Lookup, base: dict[str, Any]) -> dict[str, Any] | None:
    found: list[tuple[Scores, Scores, Scores]] = []
    for name in plan.division.tasks:
        baseline, mitigated = (result.exact(plan, name, who, lookup) for who in (True, False))
        if baseline is None or mitigated is None:
            return None
        items = base["tasks"][name]["items"]
        start = np.array([[item["exact"] for item in items]], dtype=np.float64)
        found.append((start, baseline, mitigated))
    if not found:
        return None
    starts, plains, ours = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    spread = plan.division.seed_spread
    if spread is not None:
        # Each task is a training of its own, and the mean over them varies less.
        spread = replace(spread, task=spread.task / len(found) ** 0.5)
    return tasks.summarise("all", starts, plains, ours, spread)
