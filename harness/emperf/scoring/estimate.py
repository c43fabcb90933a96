"""Estimates with bootstrap intervals.

A score is an array [seeds, items]. One bootstrap draw resamples items, the same ones for every quantity that is
compared (pairs stay pairs), and, where there are several, seeds. The interval is the central 95 % of the draws
(percentile bootstrap: Efron and Tibshirani, 1993, ch. 13). Of a few seeds that is too narrow, so a draw's move by
seeds is stretched until they alone give Student's t interval (Hesterberg, 2015: expanded percentiles).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
DRAWS = 4000


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval, and what it is a mean over. `value` is None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    items: int
    seeds: int

    def json(self) -> dict[str, Any]:
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}

    @property
    def above_zero(self) -> bool:
        return self.low is not None and self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high is not None and self.high < 0


class Resampler:
    """Shared draws. `groups`: name -> number of items; arrays of one group are resampled together."""

    def __init__(self, groups: dict[str, int], seeds: int, draws: int = DRAWS) -> None:
        rng = np.random.default_rng(0)
        self.items = groups
        self.seeds = seeds
        self._draws = {name: rng.integers(0, n, (draws, n)) for name, n in groups.items()}
        self._seeds = rng.integers(0, seeds, (draws, seeds))
        self._stretch = stretch(seeds)

    def means(self, group: str, scores: Scores) -> Scores:
        """The mean [draws] of `scores` [seeds, items] under every draw."""
        per_seed = np.stack([row[self._draws[group]].mean(-1) for row in scores], -1)
        centre = per_seed.mean(-1)
        moved = np.take_along_axis(per_seed, self._seeds, -1).mean(-1) - centre
        return np.asarray(centre + moved * self._stretch)

    def estimate(
        self,
        formula: Callable[..., Any],
        /,
        *arrays: tuple[str, Scores],
        must_exceed: tuple[int, int] | None = None,
    ) -> Estimate:
        """`formula` of the arrays' means, and its interval over the draws. It takes floats or arrays [draws].

        `must_exceed`: indices of two arrays, the first's mean less the second's being the denominator. Unless
        that difference lies above zero, interval and all, the estimate is undefined: a share of nothing, or of
        an effect that went the other way, has no meaning.
        """
        items = min(self.items[group] for group, _ in arrays)
        points = [scores.mean() for _, scores in arrays]
        draws = [self.means(group, scores) for group, scores in arrays]
        if must_exceed is not None:
            above, below = must_exceed
            if interval(draws[above] - draws[below])[0] <= 0:
                return Estimate(None, None, None, items, self.seeds)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.asarray(formula(*draws), dtype=np.float64)
            value = float(formula(*points))
        if not np.isfinite(value):
            return Estimate(None, None, None, items, self.seeds)
        low, high = interval(values)
        return Estimate(value, low, high, items, self.seeds)


def stretch(seeds: int) -> float:
    """sqrt(n / (n - 1)) for the bootstrap's small variance, t(0.975, n - 1) / z(0.975) for the heavy tails."""
    from scipy import stats

    if seeds < 2:
        return 1.0
    return float((seeds / (seeds - 1)) ** 0.5 * stats.t.ppf(0.975, seeds - 1) / stats.norm.ppf(0.975))


def interval(draws: Scores) -> tuple[float, float]:
    finite = draws[np.isfinite(draws)]
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def ratio_of_pairs(ratios: list[float]) -> Estimate:
    """Geometric mean of paired ratios; Student's t interval on their logarithms, from two pairs on."""
    from scipy import stats

    logs = np.log(ratios)
    value = float(np.exp(logs.mean()))
    if len(logs) < 2:
        return Estimate(value, None, None, len(logs), 1)
    half = float(stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)))
    return Estimate(value, float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half)), len(logs), 1)
