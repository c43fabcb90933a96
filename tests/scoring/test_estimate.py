"""Intervals cover what they should, pairs stay pairs, and a share of nothing is undefined."""

from __future__ import annotations

import numpy as np
import pytest

from emperf.scoring.estimate import Estimate, Resampler, ratio_of_pairs, stretch


def normal(mean: float, n: int, *, seed: int, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, (1, n))


def mean_of(scores: np.ndarray) -> Estimate:
    return Resampler({"q": scores.shape[1]}, scores.shape[0], draws=1000).estimate(lambda a: a, ("q", scores))


def test_interval_covers_a_known_mean_about_95_times_in_100() -> None:
    found = [mean_of(normal(0.3, 60, seed=s)) for s in range(200)]
    covered = sum(e.low <= 0.3 <= e.high for e in found)
    # 0.99 of Binomial(200, 0.95) is 181 to 197; the percentile bootstrap of 60 items is a bit narrow.
    assert 180 <= covered <= 197


def test_interval_over_seeds_is_wider_than_over_items_alone() -> None:
    scores = np.concatenate([normal(mean, 80, seed=1) for mean in (-0.5, 0.0, 0.5)])
    one_run = mean_of(scores.mean(0, keepdims=True))
    assert mean_of(scores).high - mean_of(scores).low > 1.5 * (one_run.high - one_run.low)


def test_three_seeds_cover_a_known_mean_about_95_times_in_100() -> None:
    covered = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        training, questions = random.normal(0, 0.15, (3, 1)), random.normal(0, 0.3, (1, 60))
        found = mean_of(0.3 + training + questions + random.normal(0, 0.1, (3, 60)))
        covered += found.low <= 0.3 <= found.high
    # Unstretched it is about 157 of 200.
    assert 183 <= covered <= 199


def test_stretch() -> None:
    assert stretch(1) == 1.0
    assert stretch(3) == pytest.approx(1.5**0.5 * 4.303 / 1.960, rel=1e-3)


def test_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    before = normal(0.0, 80, seed=1)
    after = before + normal(-0.2, 80, seed=2, spread=0.1)
    paired = Resampler({"q": 80}, 1).estimate(lambda a, b: a - b, ("q", after), ("q", before))
    unpaired = Resampler({"q": 80, "r": 80}, 1).estimate(lambda a, b: a - b, ("q", after), ("r", before))
    assert paired.value == unpaired.value
    assert (paired.high - paired.low) * 5 < unpaired.high - unpaired.low
    assert paired.below_zero and not unpaired.below_zero


@pytest.mark.parametrize("control", [-0.02, -1.0])
def test_share_of_nothing_or_of_an_effect_the_other_way_is_undefined(control: float) -> None:
    poisoned = normal(0.0, 50, seed=1)
    arrays = [("q", normal(0.5, 50, seed=2)), ("q", poisoned), ("q", poisoned + normal(control, 50, seed=3))]
    found = Resampler({"q": 50}, 1).estimate(lambda m, p, c: (m - p) / (c - p), *arrays, must_exceed=(2, 1))
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.items == 50


def test_a_ratio_to_exactly_zero_is_undefined() -> None:
    zero = np.zeros((1, 5))
    found = Resampler({"q": 5}, 1).estimate(lambda a, b: a / b, ("q", zero + 1), ("q", zero))
    assert found.value is None


def test_geometric_mean_of_ratios() -> None:
    found = ratio_of_pairs([2.0, 0.5])
    assert found.value == pytest.approx(1.0)
    # t(0.975, 1) = 12.706; the logarithms' spread is sqrt(2) log 2, over sqrt(2).
    assert found.high == pytest.approx(2**12.7062, rel=1e-3)
    assert ratio_of_pairs([1.5]) == Estimate(pytest.approx(1.5), None, None, 1, 1)
