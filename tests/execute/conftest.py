"""Runs of the tiny benchmark against a runtime that ends as it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_benchmark import Tiny, ready_tiny
from tests.told import Told

from emperf import catalog
from emperf.catalog.prepare import prepared
from emperf.execute.engine import Engine
from emperf.execute.store import RunStore
from emperf.experiments import session
from emperf.experiments.conclude import conclude
from emperf.report.progress import Progress


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return ready_tiny(tmp_path_factory.mktemp("engine"))


@pytest.fixture
def start(benchmark: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """(result.json's content, the runtime): one run of kl, in a store of this test."""
    monkeypatch.setenv("EMPERF_ROOT", str(benchmark.root))
    monkeypatch.setenv("EMPERF_HOME", str(benchmark.home))

    def run(
        submission: str = "kl", parallel: int = 1, name: str = "tiny", cross: bool = False, **told: Any
    ) -> tuple[dict[str, Any], Told]:
        division = catalog.division(name)
        plan, baseline = session.plan_run(division, Path(submission), {}, cross=cross)
        model = prepared(catalog.model(division.model))
        submissions = {s.digest: s for s in (baseline, plan.submission)}
        runtime = Told(model, **told)
        with RunStore(tmp_path / "store", plan.run_id) as store, Progress() as progress:
            mended = [
                c.train for c in plan.cells if plan.submission.scenario == "cure" and c.method == "none"
            ]
            engine = Engine(
                division,
                submissions,
                store,
                runtime,
                model,
                progress,
                parallel=parallel,
                reuse=frozenset(mended),
            )
            results = engine.run(plan.cells)
            return conclude(plan, store, runtime, results, measured=engine.measured), runtime

    return run
