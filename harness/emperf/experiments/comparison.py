"""The whole catalogue in one division: which cells, in which order, and a row a method from what is stored."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from emperf import catalog, records
from emperf.catalog import Division, Submission
from emperf.catalog.prepare import prepared
from emperf.catalog.scenarios import CURE, PREVENT
from emperf.core import digests
from emperf.core.errors import UserError
from emperf.core.files import read_json
from emperf.execute.devices import Devices
from emperf.execute.engine import Engine
from emperf.execute.results import Results
from emperf.execute.store import RunStore
from emperf.experiments import session
from emperf.experiments.about import about
from emperf.experiments.run import Say, Watched
from emperf.experiments.tables import (
    before,
    complete,
    heading,
    method,
    narrowed,
    of_block,
    side_by_side,
    unfinished,
)
from emperf.records import provenance
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


# Makes a table of plans, by a row's name, and what is stored.
Tabled = Callable[[dict[str, Plan], Results], dict[str, Any]]


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


def swept(chosen: Sequence[Entry], sweep: Sequence[str]) -> list[Entry]:
    """Every entry's submission once for each combination of values. `sweep`: "NAME=VALUE,VALUE,...", a parameter each.

    Controls are left out. Raises UserError for one that is not written so, or a value that a submission does not take.
    """
    values = {}
    for one in sweep:
        name, sign, listed = one.partition("=")
        if not sign or not name or not all(listed.split(",")):
            raise UserError(f"--sweep {one} names no values", "Write --sweep NAME=VALUE,VALUE.")
        values[name] = listed.split(",")
    submissions = {entry.submission.digest: entry.submission for entry in chosen}.values()
    found = [
        Entry(submission, dict(zip(values, combination, strict=True)))
        for submission in submissions
        for combination in itertools.product(*values.values())
    ]
    return list({entry.name: entry for entry in found}.values())


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
        "comparison", derived, division, [chosen],
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
    # Rates of judged answers are no part of a table yet.
    division = replace(division, sampled=None)
    baseline = catalog.submission(Path(BASELINE))
    submissions = {s.digest: s for s in (baseline, *(entry.submission for entry in chosen))}
    for entry in chosen:
        session.plan_run(division, entry.submission.folder, entry.given)
    model = prepared(catalog.model(division.model))
    took = session.choose_runtime(runtime, store, list(submissions.values()))
    gpus = session.gpus_of(division)
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
        results = engine.run(cells, about(kind, division, plans))
        whole = provenance.now(opened.run_id, took.runtime.describe()) | tabled(plans, results)
        whole["parallel"] = read_json(opened.folder / "run.json")["parallel"]
        records.finish(kind, opened.folder, whole, measured=True)
    return whole, opened.folder


def run_id(division: Division, ground: Ground, kind: str) -> str:
    """The same whatever methods and datasets are compared, so that one that is added finds the others' cells."""
    recipes = [division.trained_by(PREVENT.name), division.cure and division.trained_by(CURE.name)]
    stands_on = [division.called, recipes, ground.model_digest, ground.place]
    return f"{COMMANDS[kind]}-{division.called.replace('/', '-')}-{digests.short(digests.of_json(stands_on))[:8]}"


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


def derived(plans: dict[str, Plan], results: Results) -> dict[str, Any]:
    """What of comparison.json (spec/schemas/comparison.schema.json) follows from the store.

    `plans`: by a row's name. Raises UserError if no poison is whole for all methods.
    """
    first = next(iter(plans.values()))
    part = complete(first.division, list(plans.values()), results)
    if part is None:
        raise unfinished(plans, results, "no poison is whole for all methods yet")
    methods = [method(name, narrowed(plan, part), results) for name, plan in plans.items()]
    return heading(part, plans, results) | {
        "baseline": before(narrowed(first, part), results),
        "rows": side_by_side(methods),
    }
