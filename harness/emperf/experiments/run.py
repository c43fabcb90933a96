"""`emperf run`: one submission against the baseline in a division, and its scorecard."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.catalog import Division
from emperf.catalog.prepare import prepared
from emperf.execute.engine import Engine, Watcher
from emperf.execute.judging import Judging, check_judge
from emperf.execute.store import RunStore
from emperf.experiments import judging, session
from emperf.experiments.about import about
from emperf.experiments.conclude import conclude

Say = Callable[[str], None]
Watched = AbstractContextManager[Watcher]


def run(
    division: Division,
    submission: Path,
    given: dict[str, Any],
    *,
    runtime: str,
    store: Path,
    watch: Watched,
    say: Say,
    cross: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Run what is missing; (result.json's content, the run's folder).

    `given`: parameters of the submission. `watch`: shows how the run goes on. `cross`: as of `make_plan`. Raises
    UserError for what a user can get wrong, before anything is trained; CellFailure(MACHINE).
    """
    checked, baseline = session.plan_run(division, submission, given, cross=cross)
    model = prepared(catalog.model(division.model))
    if division.sampled is not None:
        check_judge(catalog.judge(division.sampled.judge))
    both = [baseline, checked.submission]
    chosen = session.choose_runtime(runtime, store, both)
    gpus = session.gpus_of(division)
    plan, _ = session.plan_run(division, submission, given, chosen.place(gpus), cross=cross)
    say(f"Runtime: {chosen.runtime.name}. {chosen.why}")
    say(f"Run {plan.run_id}: {len(plan.cells)} cells and the base model.")
    # What a cure mends is trained once, for all cures; a prevention's baseline is timed beside it.
    mends = checked.submission.mends
    reuse = {cell.train for cell in plan.cells if cell.submission == baseline.digest and mends}
    with RunStore(store, plan.run_id) as opened, watch as watcher:
        engine = Engine(
            division, {s.digest: s for s in both}, opened, chosen.runtime, model, watcher, chosen.images, gpus,
            reuse=frozenset(reuse),
        )  # fmt: skip
        results = engine.run(plan.cells, about("result", division, {plan.submission.name: plan}))
        device = "cuda" if gpus else "cpu"
        asker = Judging(store, device, watcher.note)
        judging.ask(plan, results, judging.chosen(results, plan), asker)
        whole = conclude(plan, opened, chosen.runtime, results, measured=engine.measured)
    return whole, opened.folder
