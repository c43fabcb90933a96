"""A ratio of two means, with Fieller's interval."""

from __future__ import annotations

from collections.abc import Callable

from emperf.scoring.estimate import (
    LEVEL,
    Estimate,
    Part,
    Scores,
    join,
    t_quantile,
    terms,
    undefined,
)  # fmt: skip


def fieller(
    numerator: Scores,
    denominator: Scores,
    *,
    prior: Callable[[float], float] = lambda ratio: 0.0,
    prior_df: float = 0.0,
    level: float = LEVEL,
) -> Estimate:
    """The ratio of two means over the same replicates and items, by Fieller (1954).

    The interval holds all ratios r at which the contrast numerator - r denominator cannot be told from zero.
    `prior(r)`: that contrast's variance between seeds, measured beforehand. The ratio is undefined if the denominator
    lies so near zero that the interval has no bounds.
    """
    seeds, items = denominator.shape
    bottom = float(denominator.mean())
    if bottom == 0:
        return undefined(items, seeds)
    ratio = float(numerator.mean()) / bottom

    def contrast(r: float) -> tuple[float, float, float]:
        part = Part(numerator - r * denominator, prior(r))
        return (float(part.values.mean()), *join(terms([part], prior_df)))

    def far(r: float) -> float:
        """Above zero if the contrast can be told from zero."""
        mean, variance, df = contrast(r)
        return mean**2 - t_quantile(0.5 + level / 2, df) ** 2 * variance

    _, variance, df = contrast(ratio)
    se = variance**0.5 / abs(bottom)
    low, high = (_edge(far, ratio, side * max(se, 1e-9)) for side in (-1, 1))
    if low is None or high is None:
        return undefined(items, seeds)
    return Estimate(ratio, low, high, items, seeds, se, df)


def _edge(far: Callable[[float], float], ratio: float, step: float) -> float | None:
    """Where `far` turns positive on the way from `ratio`. None if it does not within 12 doublings of `step`."""
    from scipy.optimize import brentq

    near, reach = ratio, ratio + step
    for _ in range(12):
        if far(reach) > 0:
            # Rounding may tell the ratio itself from its contrast, where no score varies.
            return float(brentq(far, near, reach, xtol=1e-9, rtol=1e-8)) if far(near) <= 0 else near
        near, step = reach, 2 * step
        reach += step
    return None
