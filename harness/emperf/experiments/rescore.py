"""`emperf rescore`: the stored weights of a run, read again with today's protocols. Nothing is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emperf import catalog, records
from emperf.catalog.prepare import prepared
from emperf.core.errors import CellFailure, FailureKind, UserError
from emperf.execute.engine import Engine
from emperf.execute.results import Results
from emperf.execute.store import RunStore
from emperf.experiments import comparison, conclude, session, tune
from emperf.experiments.about import about, again
from emperf.experiments.run import Watched
from emperf.records import provenance
from emperf.runtimes import ContainerJob, Outcome
from emperf.work.plan import Plan

Json = dict[str, Any]
ENDING = "-rescored"


class ReadsOnly:
    """In place of a runtime: what would train is refused."""

    name, certifiable = "none", False

    def describe(self) -> Json:
        return {}

    def run(self, job: ContainerJob, on_tick: Callable[[float], None] | None = None) -> Outcome:
        raise CellFailure(FailureKind.MACHINE, "a training was asked for where all have to be there")

    def collect(self, job: ContainerJob) -> Any:
        return iter(())

    def cleanup(self, job: ContainerJob) -> None: ...

    def sweep(self, run_id: str) -> int:
        return 0


def derive(kind: str, plans: dict[str, Plan], results: Results) -> Json:
    """What of a record of this kind (result, comparison, tuning) follows from the store."""
    if kind == "result":
        return conclude.derived(next(iter(plans.values())), results)
    return comparison.derived(plans, results) if kind == "comparison" else tune.derived(plans, results)


def rescore(folder: Path, watch: Watched) -> tuple[str, Json, Path]:
    """(kind, record, its folder) of the run in `folder`, read again; kept as a run of its own.

    Time and memory stay those of the run. Raises UserError where weights are missing, or the run is a trace.
    """
    kind, plans, results = again(folder)
    cells = list(results.cells.values())
    store = results.store
    missing = [
        cell.label
        for cell in cells
        if (record := store.record(cell.train)) is None
        or (record["failure"] is None and store.units.trained(cell.train) is None)
    ]
    if missing:
        raise UserError(
            f"{folder.name} has no weights any more of {missing[0]}, and {len(missing) - 1} more cells",
            "Give the command of that run again: it trains what is missing.",
        )
    path = folder / f"{kind}.json"
    if not path.is_file():
        raise UserError(f"{folder.name} is not finished", "Give the command of that run again.")
    before = records.read(kind, path)
    division = next(iter(plans.values())).division
    model = prepared(catalog.model(division.model))
    again_in = RunStore(store.root, folder.name.removesuffix(ENDING) + ENDING)
    with again_in as opened, watch as watcher:
        if opened.folder != folder:
            shutil.copytree(folder / "trained", opened.folder / "trained", dirs_exist_ok=True)
        engine = Engine(division, {}, opened, ReadsOnly(), model, watcher, gpus=session.gpus_of(division))
        fresh = engine.run(cells, about(kind, division, plans))
        made = provenance.now(opened.run_id, before["runtime"], before["machine"])
        whole = before | made | derive(kind, plans, fresh)
        records.finish(kind, opened.folder, whole, measured=True)
    return kind, whole, opened.folder
