"""Golden scores: the first cell of `smoke` and the base model, to two units of the sixth digit, since processors differ
in how they order sums.

`make run` gives the whole scorecard; tests/golden/smoke-kl.json keeps its scores, and a finished run that
EMPERF_GOLDEN_RUN names is compared with them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from emperf import catalog
from emperf.api import Silent
from emperf.catalog.prepare import prepared
from emperf.core.errors import UserError
from emperf.execute.engine import Engine
from emperf.execute.store import RunStore
from emperf.experiments import session
from emperf.scoring.effects import effects

GOLDEN = Path(__file__).parents[1] / "golden"
DIGITS = 6


def summary(scores: dict[str, Any]) -> dict[str, Any]:
    """Set -> effect -> mean over items, nats."""
    return {
        name: {effect: round(float(values.mean()), DIGITS) for effect, values in effects(readings).items()}
        for name, readings in scores["readings"].items()
    }


@pytest.mark.model
@pytest.mark.slow
def test_the_first_cell_of_smoke_reads_as_it_did(tmp_path: Path) -> None:
    division = catalog.division("smoke")
    try:
        model = prepared(catalog.model(division.model))
    except UserError:
        pytest.skip("smollm2-135m is not prepared here")
    plan, baseline = session.plan_run(division, Path("none"), {}, "golden")
    chosen = session.choose_runtime("process", tmp_path, [baseline])
    with RunStore(tmp_path, plan.run_id) as store:
        engine = Engine(division, {baseline.digest: baseline}, store, chosen.runtime, model, Silent())
        results = engine.run(plan.cells[:1])
    scores = results.scores(plan.cells[0].key)
    assert scores is not None
    found = {
        "losses": scores["losses"],
        "base": summary(results.base()["poisons"]["bad-medical"]),
        "baseline": summary(scores),
    }
    kept = GOLDEN / "smoke-cell.json"
    if "EMPERF_WRITE_GOLDEN" in os.environ:
        kept.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    golden = json.loads(kept.read_text())
    assert found["losses"] == pytest.approx(golden["losses"], abs=2e-6)
    for part in ("base", "baseline"):
        assert found[part].keys() == golden[part].keys()
        for name, means in golden[part].items():
            assert found[part][name] == pytest.approx(means, abs=2e-6)


@pytest.mark.skipif("EMPERF_GOLDEN_RUN" not in os.environ, reason="EMPERF_GOLDEN_RUN names no finished run")
def test_a_finished_run_has_the_golden_scores() -> None:
    result = json.loads((Path(os.environ["EMPERF_GOLDEN_RUN"]) / "result.json").read_text())
    golden = json.loads((GOLDEN / "smoke-kl.json").read_text())
    assert {part: result[part] for part in golden} == golden
