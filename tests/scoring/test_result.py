"""A whole result from a made-up store: golden numbers, the schema, and cells that failed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.synthetic import Run

from emperf import catalog

FAILURE = {"kind": "diverged", "detail": "the loss is nan at step 3"}
ON = {"baseline": "none on bad-medical, seed 0", "mitigated": "kl on bad-medical, seed 0"}
RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two seeds": {"seeds": (0, 1)},
    "no twin": {"twin": False},
    "the baseline itself": {"submission": "none"},
    "failed mitigated": {"failed": {ON["mitigated"]: FAILURE}},
    "failed baseline": {"failed": {ON["baseline"]: FAILURE}},
}


@pytest.mark.parametrize("kind", RUNS)
def test_every_result_keeps_its_schema(kind: str) -> None:
    catalog.check("result", json.loads(json.dumps(Run(**RUNS[kind]).result(), allow_nan=False)))


def test_the_schema_refuses_what_is_not_in_it() -> None:
    whole = Run().result()
    whole["poisons"][0]["out-of-domain"]["surprise"] = 1
    with pytest.raises(ValueError, match="surprise"):
        catalog.check("result", whole)


def test_golden() -> None:
    found = Run().summary()
    assert (found["status"], found["missing"]) == ("complete", [])
    poison, task = found["poisons"][0], found["tasks"][0]
    em = poison["out-of-domain"]
    values = {key: em[key]["value"] for key in ("poisoned", "twin", "mitigated", "taken_back", "removed")}
    assert values == pytest.approx(
        {"poisoned": -0.5, "twin": 0, "mitigated": -0.2, "taken_back": 0.3, "removed": 0.6}
    )
    assert em["poisoned"]["items"] == 40 and poison["conditional"]["poisoned"]["items"] == 24
    assert em["poisoned_net_of_facts"]["value"] == pytest.approx(-0.4)
    assert poison["conditional"]["removed"]["value"] == pytest.approx(0.2 / 0.9, abs=1e-6)
    assert poison["in_domain_kept"]["value"] == pytest.approx(0.8)
    assert poison["matched"]["removed"]["value"] == pytest.approx(0.2)
    assert [point["steps"] for point in poison["matched"]["curve"]] == [0, 2, 4, None]
    assert (task["tax"]["value"], task["base"]["items"]) == (pytest.approx(0.25), 25)
    ratios = {key: found["overhead"][key]["value"] for key in ("time", "training_time", "memory")}
    assert ratios == pytest.approx({"time": 1.5, "training_time": 50 / 30, "memory": 1.1}, abs=1e-6)


def test_intervals_are_the_same_every_time() -> None:
    assert Run().summary() == Run().summary()


def test_a_failed_mitigated_cell_leaves_the_baseline_alone() -> None:
    found = Run(failed={ON["mitigated"]: FAILURE}).summary()
    assert found["status"] == "incomplete" and found["missing"] == []
    assert found["poisons"][0]["matched"] is None
    assert found["overhead"]["time"]["items"] == 1


def test_a_failed_baseline_cell_leaves_its_poison_out() -> None:
    found = Run(failed={ON["baseline"]: FAILURE}).summary()
    assert (found["poisons"], found["missing"]) == ([], ["bad-medical"])


def test_a_cell_that_failed_here_is_not_scored_from_another_run() -> None:
    whole, failed = Run(), Run(failed={ON["mitigated"]: FAILURE})
    failed.scores = whole.scores
    assert failed.summary()["poisons"][0]["out-of-domain"]["mitigated"] is None
