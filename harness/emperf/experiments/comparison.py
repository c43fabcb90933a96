"""The whole catalogue in one division: which cells, in which order, and a row a method from what is stored."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import emperf
from emperf import catalog
from emperf.catalog import Division, Submission
from emperf.catalog.prepare import prepared
from emperf.catalog.scenarios import CURE, PREVENT
from emperf.core import digests
from emperf.core.errors import UserError
from emperf.core.files import read_json, write_json
from emperf.execute.devices import Devices
from emperf.execute.engine import Engine
from emperf.execute.results import Results
from emperf.execute.store import RunStore
from emperf.experiments import session
from emperf.experiments.conclude import machine, sources
from emperf.experiments.run import Say, Watched
from emperf.scoring import poisons, result, tasks
from emperf.scoring.effects import Scores
from emperf.scoring.estimate import holm
from emperf.scoring.poisons import PoisonScores
from emperf.scoring.pooled import pool, ranks
from emperf.work.plan import BASELINE, Cell, Ground, Plan, make_plan

COMMANDS = {"comparison": "compare", "tuning": "tune"}


@dataclass(frozen=True)
class Entry:
    """A row of the table: a submission with its defaults, one of its controls, or a setting of its sweep."""

    submission: Submission
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.submission.called(self.submission.values(self.given))


# Makes a table of (division, rows, plans by a row's name, what is stored).
Tabled = Callable[[Division, Sequence[Entry], dict[str, Plan], Results], dict[str, Any]]


def entries(names: Sequence[str]) -> list[Entry]:
    """The submissions named (folders, or names in the catalogue; all of it if none), each with its controls."""
    found = []
    for name in names or catalog.names("mitigations"):
        submission = catalog.submission(Path(name))
        if submission.name != BASELINE:
            found.append(Entry(submission))
            found += [Entry(submission, given) for given in submission.controls.values()]
    if len({entry.name for entry in found}) < len(found):
        raise UserError("Two of the submissions have one name", "Give each a name of its own.")
    return found


def compare(
    division: Division,
    chosen: Sequence[Entry],
    *,
    runtime: str,
    store: Path,
    watch: Watched,
    say: Say,
    minutes: float | None = None,
    parallel: int | None = None,
) -> tuple[dict[str, Any], Path]:
    """Run what is missing, for at most `minutes` (None: to the end); (comparison.json's content, its folder).

    Raises UserError as `carry_out` and `table`.
    """
    return carry_out(
        "comparison", table, division, [chosen],
        runtime=runtime, store=store, watch=watch, say=say, minutes=minutes, parallel=parallel,
    )  # fmt: skip


def carry_out(
    kind: str,
    tabled: Tabled,
    division: Division,
    groups: Sequence[Sequence[Entry]],
    *,
    runtime: str,
    store: Path,
    watch: Watched,
    say: Say,
    minutes: float | None = None,
    parallel: int | None = None,
) -> tuple[dict[str, Any], Path]:
    """Run what is missing of one group of rows after the other, for at most `minutes` (None: to the end).

    Gives (the content of `kind`.json, its folder): what `tabled` makes of all that is stored, with where it was run.
    Raises UserError for a submission that the division cannot run (scenario, trusted rows), before anything is trained.
    """
    chosen = [entry for group in groups for entry in group]
    baseline = catalog.submission(Path(BASELINE))
    submissions = {s.digest: s for s in (baseline, *(entry.submission for entry in chosen))}
    for entry in chosen:
        session.plan_run(division, entry.submission.folder, entry.given)
    model = prepared(catalog.model(division.model))
    took = session.choose_runtime(runtime, store, list(submissions.values()))
    gpus = session.gpu_indices()
    ground = session.ground_of(division, took.place(gpus))
    plans = {e.name: make_plan(division, e.submission, baseline, e.given, ground) for e in chosen}
    until = None if minutes is None else time.monotonic() + 60 * minutes
    side = parallel or room(division, gpus)
    cells = list(
        {c.key: c for group in groups for c in ordered(division, [plans[e.name] for e in group])}.values()
    )
    say(f"Runtime: {took.runtime.name}. {took.why}")
    say(f"A {kind} of {len(plans)} rows in {division.name}: {len(cells)} cells, {side} at a time.")
    with RunStore(store, run_id(division, ground, kind)) as opened, watch as progress:
        engine = Engine(
            division, submissions, opened, took.runtime, model, progress, took.images, gpus,
            parallel=side, until=until,
        )  # fmt: skip
        whole = tabled(division, chosen, plans, engine.run(cells))
        whole |= {"runtime": took.runtime.describe(), "machine": machine()}
        whole["parallel"] = read_json(opened.folder / "run.json")["parallel"]
        catalog.check(kind, whole)
        write_json(opened.folder / f"{kind}.json", whole)
    return whole, opened.folder


def run_id(division: Division, ground: Ground, kind: str) -> str:
    """The same whatever methods and datasets are compared, so that one that is added finds the others' cells."""
    recipes = [division.trained_by(PREVENT.name), division.cure and division.trained_by(CURE.name)]
    stands_on = [division.name, recipes, ground.model_digest, ground.place]
    return f"{COMMANDS[kind]}-{division.name}-{digests.short(digests.of_json(stands_on))[:8]}"


def room(division: Division, gpus: Sequence[int]) -> int:
    """Cells that can train at a time: as many as have GPUs, else as cores and memory hold at the division's limits."""
    if gpus:
        return Devices(gpus, division.recipe.processes).cells
    cores = (os.cpu_count() or 1) / division.limits.cpus
    memory = psutil.virtual_memory().available / division.limits.memory_bytes
    return max(1, int(min(cores, memory)))


def ordered(division: Division, plans: Sequence[Plan]) -> list[Cell]:
    """Seed by seed, a poison and a task in turn; on each the baseline, its twin, then every method."""
    every = {cell.key: cell for plan in plans for cell in plan.cells}
    makers = {cell.train: cell for cell in every.values()}
    out: dict[str, Cell] = {}
    for seed, name in blocks(division):
        for cell in sorted(of_block(every.values(), seed, name), key=lambda c: c.method != BASELINE):
            for one in (*(makers[train] for train in cell.needs), cell):
                out.setdefault(one.key, one)
    return list(out.values())


def blocks(division: Division) -> Iterator[tuple[int, str]]:
    pairs = itertools.zip_longest(division.poisons, division.tasks)
    names = [name for pair in pairs for name in pair if name is not None] + list(division.controls)
    yield from itertools.product(division.seeds, names)


def of_block(cells: Any, seed: int, name: str) -> list[Cell]:
    return [cell for cell in cells if (cell.seed, cell.data.name) == (seed, name)]


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


def table(
    division: Division, chosen: Sequence[Entry], plans: dict[str, Plan], results: Results
) -> dict[str, Any]:
    """comparison.json (spec/schemas/comparison.schema.json). Raises UserError if no poison is whole for all methods."""
    part = complete(division, list(plans.values()), results)
    if part is None:
        raise unfinished(plans, results, "no poison is whole for all methods yet")
    methods = {entry.name: method(entry, narrowed(plans[entry.name], part), results) for entry in chosen}
    rows = side_by_side(list(methods.values()))
    return heading(part, plans, results) | {
        "baseline": before(narrowed(next(iter(plans.values())), part), results),
        "rows": rows,
    }


def heading(part: Division, plans: dict[str, Plan], results: Results) -> dict[str, Any]:
    """What a table says of itself. `part`: what of the division it holds."""
    return {
        "schema": 1,
        "emperf": emperf.__version__,
        "sources": sources(),
        "run_id": results.store.run_id,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
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


def method(entry: Entry, plan: Plan, results: Results) -> Method:
    """One method: its pooled scores, null where any cell of it failed, and its costs over the cells that did not."""
    base, lookup = results.base(), scored(results)
    found = [result.poison_scores(plan, name, lookup, base) for name in plan.division.poisons]
    usable = [s for s in found if s is not None and s.mitigated]
    records = [results.record(cell.key) for cell in plan.cells if cell.submission == entry.submission.digest]
    failures = [
        record["failure"] | {"cell": record["label"]} for record in records if record and record["failure"]
    ]
    whole = not failures and len(usable) == len(found)
    scores = pool(usable, "all") if whole else None
    pairs, mended = result.pairs_of(plan, results.record), entry.submission.mends
    row = {
        "name": entry.name,
        "scenario": entry.submission.scenario,
        "parameters": plan.parameters,
        "digest": entry.submission.digest,
        "failures": failures,
        "poisons": poisons.summarise(scores) if scores else None,
        "tasks": all_tasks(plan, lookup, base) if not failures else None,
    }
    costs = {cost: tasks.ratios(pairs, name, mended=mended) for cost, name in tasks.FIELDS.items()}
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
