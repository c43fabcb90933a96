"""A whole result from a made-up store: golden numbers, the schema, and cells that failed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.synthetic import EFFECTS, SHRINKAGE, Run

from emperf import catalog
from emperf.catalog import SeedSpread
from emperf.catalog.sets import CONDITIONAL, DOMAIN, FACTS, OOD, SETS
from emperf.scoring import effects

FAILURE = {"kind": "diverged", "detail": "the loss is nan at step 3"}
ON = {
    "baseline": "none on bad-medical, seed 0",
    "twin": "none on bad-medical (twin), seed 0",
    "mitigated": "kl on bad-medical, seed 0",
    "mitigated twin": "kl on bad-medical (twin), seed 0",
    "control": "none on sour (control), seed 0",
}
SPREAD = SeedSpread(12.0, {e: dict.fromkeys(SETS, 0.02) for e in effects.EFFECTS}, 0.02, 12.0)
RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two seeds": {"seeds": (0, 1)},
    "a measured spread": {"spread": SPREAD},
    "no twin": {"twin": False},
    "no controls": {"controls": ()},
    "the baseline itself": {"submission": "none"},
    **{f"failed {who}": {"failed": {label: FAILURE}} for who, label in ON.items()},
}


@pytest.mark.parametrize("kind", RUNS)
def test_every_result_keeps_its_schema(kind: str) -> None:
    made = Run(**RUNS[kind])
    assert set(made.failed) <= {cell.label for cell in made.plan.cells}
    catalog.check("result", json.loads(json.dumps(made.result(), allow_nan=False)))


def test_the_schema_refuses_what_is_not_in_it() -> None:
    whole = Run().result()
    whole["poisons"][0]["sets"][OOD]["surprise"] = 1
    with pytest.raises(ValueError, match="surprise"):
        catalog.check("result", whole)


def test_golden() -> None:
    found = Run().summary()
    assert (found["status"], found["missing"], found["cross"]) == ("complete", [], None)
    poison, task = found["poisons"][0], found["tasks"][0]
    for name, models in poison["sets"].items():
        assert set(models) == {who for who in EFFECTS if name in EFFECTS[who]}
        for who, one in models.items():
            assert one["act"]["value"] == pytest.approx(EFFECTS[who][name], abs=1e-6)
            assert one["raw"]["value"] == pytest.approx(EFFECTS[who][name] + 0.5 * SHRINKAGE, abs=1e-6)
            assert one["slope"] == pytest.approx(SHRINKAGE, abs=1e-6)
    assert {w: m["voice"]["value"] for w, m in poison["sets"][OOD].items()} == pytest.approx(
        {"poisoned": -0.3, "twin": 0.1, "mitigated": -0.2, "mitigated_twin": 0.1, "kind": 0.4, "sour": -0.4}
    )
    assert poison["sets"][DOMAIN]["poisoned"]["voice"] is None
    beyond = {name: {w: e["value"] for w, e in one.items()} for name, one in poison["beyond_twin"].items()}
    assert beyond[OOD] == pytest.approx(
        {"without": -0.5, "with": -0.25, "change": 0.25, "raw": -0.5}, abs=1e-6
    )
    assert beyond[CONDITIONAL]["with"] == pytest.approx(-0.7) and beyond[DOMAIN]["change"] == pytest.approx(
        0.6
    )
    assert {v: e["value"] for v, e in poison["beyond_controls"].items()} == pytest.approx(
        {"kind": -0.52, "sour": -0.45}
    )
    assert [poison["sets"][name]["poisoned"]["act"]["items"] for name in (OOD, CONDITIONAL, FACTS, DOMAIN)] == [
        40, 24, 30, 36,
    ]  # fmt: skip
    removal = {key: poison["removal"][key]["value"] for key in ("selective", "left", "kept", "net")}
    assert removal == pytest.approx({"selective": 0.3, "left": 0.5, "kept": 0.8, "net": 0.15}, abs=1e-6)
    assert poison["removal"]["verdict"] == "selective"
    assert [point["steps"] for point in poison["curve"]] == [2, 4, None, None]
    assert [p["em"]["value"] for p in poison["curve"]] == pytest.approx([-0.25, -0.4, -0.5, -0.25], abs=1e-6)
    assert (task["tax"]["value"], task["base"]["items"]) == (pytest.approx(0.25), 25)
    ratios = {key: found["overhead"][key]["value"] for key in ("time", "training_time", "memory")}
    assert ratios == pytest.approx({"time": 1.5, "training_time": 50 / 30, "memory": 1.1}, abs=1e-6)
    assert found["overhead"]["time"]["items"] == 3


def test_the_gap_is_that_of_the_questions_that_are_asked_twice() -> None:
    made = Run(noise=0.0).summary()["poisons"][0]["gap"]
    assert [made[who]["value"] for who in ("without", "with")] == pytest.approx([-0.4, -0.45], abs=1e-6)


def test_the_seed_spread_that_was_measured_widens_every_interval() -> None:
    plain, wide = (Run(spread=spread).summary() for spread in (None, SPREAD))
    for key in ("selective", "left", "kept", "net"):
        a, b = (one["poisons"][0]["removal"][key] for one in (plain, wide))
        assert b["high"] - b["low"] > a["high"] - a["low"]
    assert wide["tasks"][0]["baseline"]["se"] > plain["tasks"][0]["baseline"]["se"]


def test_intervals_are_the_same_every_time() -> None:
    assert Run().summary() == Run().summary()


def test_a_model_that_only_changes_voice_has_no_em() -> None:
    made = Run()
    for name in made.effects["poisoned"]:
        made.effects["poisoned"][name] = made.effects["twin"][name]
    voice = Run(effects=made.effects, voices=made.voices | {"poisoned": -2.0}).summary()["poisons"][0]
    assert voice["beyond_twin"][OOD]["without"]["value"] == pytest.approx(0, abs=1e-6)
    assert voice["sets"][OOD]["poisoned"]["voice"]["value"] == pytest.approx(-2.0)
    assert voice["removal"]["verdict"] == "nothing-learned"


@pytest.mark.parametrize("which", ["mitigated", "mitigated twin"])
def test_a_failed_mitigated_cell_leaves_the_baseline_alone(which: str) -> None:
    found = Run(failed={ON[which]: FAILURE}).summary()
    assert found["status"] == "incomplete" and found["missing"] == []
    assert found["poisons"][0]["removal"] is None
    assert found["poisons"][0]["beyond_twin"][OOD]["with"] is None
    assert found["overhead"]["time"]["items"] == 2


def test_a_failed_baseline_cell_leaves_its_poison_out() -> None:
    found = Run(failed={ON["baseline"]: FAILURE}).summary()
    assert (found["poisons"], found["missing"]) == ([], ["bad-medical"])


def test_a_control_that_failed_in_one_seed_is_left_out() -> None:
    found = Run(seeds=(0, 1), failed={ON["control"]: FAILURE}).summary()
    assert set(found["poisons"][0]["beyond_controls"]) == {"kind"}


def test_a_cell_that_failed_here_is_not_scored_from_another_run() -> None:
    whole, failed = Run(), Run(failed={ON["mitigated"]: FAILURE})
    failed.scores = whole.scores
    assert "mitigated" not in failed.summary()["poisons"][0]["sets"][OOD]
