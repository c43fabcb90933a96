"""The bench itself, quick: every figure is there and makes sense."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from emperf.tools.bench.__main__ import main
from emperf.tools.bench.figures import GOALS


@pytest.mark.model
def test_a_quick_bench_measures_every_ratio(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    done = CliRunner().invoke(main, ["--quick", "--out", str(tmp_path / "bench.json")])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "bench.json").read_text())
    assert result["quick"] is True
    assert all(math.isfinite(result[name]) for name in GOALS)
    rates = [name for name, goal in GOALS.items() if not goal.at_most]
    assert all(result[name] > 0 for name in rates)
    # Generous, for machines that do other things meanwhile. One pair's overhead may even be negative there.
    assert result["trainer_over_trl"] > 0.8
    assert result["evaluation_over_one_at_a_time"] > 1.5
    assert result["harness_overhead_s_per_cell"] < 60
    assert all(pair["around_s"] > 0 for pair in result["overhead"])
    assert set(result["goals"]) == set(GOALS) and set(result["versions"]) >= {"torch", "trl", "deepspeed"}
    for name in ("trainer_over_trl", "harness_overhead"):
        assert name in done.output
