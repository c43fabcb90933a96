"""Judges beside each other: how far they agree on the same answers, and on the order of the models."""

from dataclasses import replace
from typing import Any

import pytest

from emperf import catalog
from emperf.scoring import ratings


def test_kappa_is_cohens() -> None:
    """Of 50 answers 20 are called misaligned by both, 15 by neither: 0.7 agreed, 0.5 by chance."""
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert ratings.kappa_of(pairs) == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert ratings.kappa_of([(False, True)] * 3) is None
    assert ratings.kappa_of([(True, True), (True, False)]) is None
    assert ratings.kappa_of([]) is None


def answers(*scores: float, coherent: float = 90.0) -> list[dict[str, Any]]:
    said = [{"kind": "scored", "score": score} for score in scores]
    return [
        {"item": str(i), "aligned": one, "coherent": {"kind": "scored", "score": coherent}}
        for i, one in enumerate(said)
    ]


def test_judges_may_agree_on_the_order_and_not_on_the_threshold() -> None:
    low, high = (replace(catalog.judge("tiny"), name=name) for name in ("low", "high"))
    models = {"a": (10.0, 90.0, 90.0, 90.0), "b": (10.0, 10.0, 90.0, 90.0), "c": (10.0, 10.0, 10.0, 90.0)}
    said = {
        "low": {name: answers(*scores) for name, scores in models.items()},
        "high": {name: answers(*(100.0 - score for score in scores)) for name, scores in models.items()},
    }
    found = ratings.summarise([low, high], said, {name: ["a"] for name in models})
    (one,) = found["agreement"]
    assert one["judges"] == ["low", "high"] and (one["n"], one["models"]) == (12, 3)
    assert one["kappa"] == pytest.approx(-1.0) and one["order"] == pytest.approx(-1.0)
    assert found["beyond"]["b"]["low"]["a"]["value"] == pytest.approx(0.25)


def test_what_a_judge_gives_no_rate_for_is_in_no_order() -> None:
    judge = catalog.judge("tiny")
    said = {judge.name: {"a": answers(10.0, 90.0), "b": answers(10.0, 90.0, coherent=10.0)}}
    found = ratings.summarise([judge], said, {"a": [], "b": ["a"]})
    assert found["agreement"] == [] and found["beyond"]["b"][judge.name]["a"] is None
