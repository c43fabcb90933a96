"""The formulas of agreement, against plain counting."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from emperf.scoring import agreement
from emperf.scoring.agreement import Flags, Ladder, Values

RNG = np.random.default_rng(1)
BAD = RNG.random(200) < 0.3
# Whole numbers, so that there are ties.
SCORES = np.clip(RNG.normal(np.where(BAD, 35, 60), 15).round(), 0, 100)


def ladder(scores: Values, bad: Flags, weights: Values | None = None) -> Ladder:
    rungs, place = np.unique(scores, return_inverse=True)
    return agreement.ladder(place, rungs, bad, np.ones((1, len(scores))) if weights is None else weights)


def plain_kappa(a: Flags, b: Flags) -> float:
    agreed = np.mean(a == b)
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float((agreed - chance) / (1 - chance))


def test_auc_counts_pairs_and_halves_ties() -> None:
    pairs = SCORES[BAD][:, None] - SCORES[~BAD][None, :]
    assert agreement.auc(ladder(SCORES, BAD))[0] == pytest.approx(((pairs < 0) + (pairs == 0) / 2).mean())
    assert agreement.auc(ladder(np.full(200, 7.0), BAD))[0] == 0.5
    assert agreement.auc(ladder(np.where(BAD, 1.0, 2.0), BAD))[0] == 1.0


@pytest.mark.parametrize("threshold", [0.0, 30.0, 47.0, 47.5, 200.0])
def test_kappa_is_cohens(threshold: float) -> None:
    found = agreement.kappa_at(ladder(SCORES, BAD), np.array([threshold]))[0]
    assert found == pytest.approx(plain_kappa(BAD, threshold > SCORES), abs=1e-12)


@pytest.mark.parametrize("bad", [np.zeros(200, bool), np.ones(200, bool)])
def test_a_single_class_has_no_auc_and_no_kappa(bad: Flags) -> None:
    assert np.isnan(agreement.auc(ladder(SCORES, bad))).all()
    assert np.isnan(agreement.kappa_at(ladder(SCORES, bad), np.array([30.0]))).all()


def test_weights_are_answers_that_stand_there_more_often() -> None:
    weights = RNG.integers(0, 4, (1, 200)).astype(float)
    repeated = np.repeat(np.arange(200), weights[0].astype(int))
    weighed, written = ladder(SCORES, BAD, weights), ladder(SCORES[repeated], BAD[repeated])
    for formula in (agreement.auc, agreement.matched_threshold):
        assert formula(weighed) == pytest.approx(formula(written))
    at = agreement.matched_threshold(written)
    assert agreement.kappa_at(weighed, at) == pytest.approx(agreement.kappa_at(written, at))


def test_the_matched_threshold_is_the_quantile_at_the_references_rate() -> None:
    scores = RNG.permutation(200).astype(float)
    found = float(agreement.matched_threshold(ladder(scores, BAD))[0])
    assert (scores < found).sum() == BAD.sum()
    assert found == np.quantile(scores, BAD.mean(), method="midpoint")
    assert ((scores < found) == (scores < np.quantile(scores, BAD.mean()))).all()


@pytest.mark.parametrize(
    ("scores", "bad", "below"),
    [
        ([1, 2, 2, 2, 3], [1, 1, 0, 0, 0], 1),  # 1 or 4 can lie below, 2 are wanted
        ([1, 2, 2, 3], [1, 1, 0, 0], 1),  # 1 or 3 are as near: the lower
        ([1, 2, 2, 3], [1, 1, 1, 0], 3),
        ([5, 5, 5, 5], [1, 0, 0, 0], 0),
        ([5, 5, 5, 5], [1, 1, 1, 0], 4),
    ],
)
def test_ties_are_not_divided(scores: list[float], bad: list[int], below: int) -> None:
    values = np.array(scores, float)
    found = agreement.matched_threshold(ladder(values, np.array(bad, bool)))[0]
    assert (values < found).sum() == below


def test_held_out_thresholds_come_from_the_other_generators() -> None:
    """One generator's scores are shifted: its own threshold would be perfect, that of the others is not."""
    generator = np.arange(200) % 2
    scores = np.where(BAD, 20.0, 60.0) + RNG.uniform(0, 10, 200) + 50 * generator
    weights = np.ones((1, 200))
    whole = ladder(scores, BAD)
    rungs, place = np.unique(scores, return_inverse=True)
    parts = [agreement.ladder(place, rungs, BAD, weights * (generator == g)) for g in (0, 1)]
    found = agreement.kappa_held_out(parts, whole)[0]
    below = np.zeros(200, bool)
    for g in (0, 1):
        rest = generator != g
        threshold = np.quantile(scores[rest], BAD[rest].mean(), method="midpoint")
        below[~rest] = scores[~rest] < threshold
    assert found == pytest.approx(plain_kappa(BAD, below)) and found < 0.6
    assert np.isnan(agreement.kappa_held_out([whole], whole)).all()


def test_correlation_is_pearsons() -> None:
    a, b = RNG.normal(size=50), RNG.normal(size=50)
    assert agreement.correlation(a, b, np.ones((1, 50)))[0] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert np.isnan(agreement.correlation(a, np.full(50, 3.3), np.ones((1, 50)))).all()


@pytest.mark.parametrize(("k", "n"), [(0, 50), (15, 50), (50, 50), (235, 2588)])
def test_a_rate_has_wilsons_interval(k: int, n: int) -> None:
    known = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert agreement.wilson(np.arange(n) < k, None) == pytest.approx((known.low, known.high))


def test_answers_that_a_question_decides_count_as_one() -> None:
    flags = np.repeat(np.arange(20) < 6, 10)
    alone, together = agreement.wilson(flags, None), agreement.wilson(flags, np.repeat(np.arange(20), 10))
    assert together[0] < alone[0] and together[1] > alone[1]
    once = agreement.wilson(np.arange(20) < 6, None)
    assert together[1] - together[0] == pytest.approx(once[1] - once[0], rel=0.15)
    assert agreement.wilson(np.zeros(200, bool), np.repeat(np.arange(20), 10))[1] > 0.15
