"""Estimates with intervals, under crossed random effects of items and of replicates.

A replicate r is a training seed; where several poisons are pooled, it is a poison. The model for its score y on item i
is y = mu + R_r + I_i + (RI)_ri. With the mean squares of the two-way table, the grand mean's variance is
(MS_R + MS_I - MS_RI) / (R I). Its degrees of freedom are Satterthwaite's (1946): the squared variance over the sum of
its squared terms, each over its own degrees of freedom. An estimate may rest on several groups of items (out of domain
and in-domain). Their item terms add up, and replicates are compared by the whole estimate.

Few seeds tell little of the spread between seeds. So the spread that was measured beforehand (`Part.prior`) is joined
with the run's own, weighted by degrees of freedom: the moderated variance of Smyth (2004). With one seed it stands
alone. A ratio is linearised (delta method) by the caller: `Part.values` are then the influence of each score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
LEVEL, POWER = 0.95, 0.80
FEW = 3.0


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval, and what it is a mean over. `value` is None if it is not defined.

    `se`: standard error. `df`: Satterthwaite's degrees of freedom. Both are None if the interval is not Student's t.
    """

    value: float | None
    low: float | None
    high: float | None
    items: int
    seeds: int
    se: float | None = None
    df: float | None = None

    def json(self) -> dict[str, Any]:
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}

    @property
    def above_zero(self) -> bool:
        return self.low is not None and self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high is not None and self.high < 0


@dataclass(frozen=True)
class Part:
    """One group of items.

    `values` [replicates, items]: the estimate is the sum of the parts' grand means, up to a constant. `prior`: variance
    of this part's mean between seeds, measured beforehand; 0 if it was not.
    """

    values: Scores
    prior: float = 0.0


@dataclass(frozen=True)
class Term:
    """One term of a variance, with its degrees of freedom.

    `most`: for a difference of two mean squares, the degrees of freedom of the larger one.
    """

    variance: float
    df: float
    most: float = 0.0


def estimate(parts: Sequence[Part], *, value: float | None = None, prior_df: float = 0.0) -> Estimate:
    """The sum of the parts' means, with Student's t interval. `value`: in its place if the parts are linearised."""
    if value is None:
        value = float(sum(part.values.mean() for part in parts))
    variance, df = join(terms(parts, prior_df))
    seeds, items = parts[0].values.shape[0], min(part.values.shape[1] for part in parts)
    if not np.isfinite(value):
        return undefined(items, seeds)
    half = t_quantile(0.5 + LEVEL / 2, df) * variance**0.5
    return Estimate(value, value - half, value + half, items, seeds, variance**0.5, df)


def undefined(items: int, seeds: int) -> Estimate:
    return Estimate(None, None, None, items, seeds)


def terms(parts: Sequence[Part], prior_df: float) -> list[Term]:
    """The variance of the sum of the parts' means. Each part's items have one term, and the replicates have one."""
    replicates = parts[0].values.shape[0]
    found = [items_term(part.values) for part in parts]
    between = np.sum([part.values.mean(1) for part in parts], axis=0)
    own_df = replicates - 1.0
    own = float(between.var(ddof=1)) if own_df else 0.0
    known = sum(part.prior for part in parts)
    if prior_df and known:
        # What is seen between replicates holds the noise of items within a replicate too; the prior does not.
        known += sum(noise(part.values) / part.values.shape[1] for part in parts)
        df = prior_df + own_df
        found.append(Term((prior_df * known + own_df * own) / df / replicates, df))
    elif own_df:
        found.append(Term(own / replicates, own_df))
    return found


def items_term(values: Scores) -> Term:
    """What the choice of items adds to the grand mean's variance, beyond what also differs between replicates."""
    replicates, items = values.shape
    if items == 1:
        # Each replicate has items of its own, and they show in what differs between replicates.
        return Term(0.0, 1.0)
    whole = replicates * float(values.mean(0).var(ddof=1))
    inside = noise(values)
    left = (whole - inside) / (replicates * items)
    if left <= 0:
        return Term(0.0, items - 1.0)
    spread = whole**2 / (items - 1)
    if replicates > 1:
        spread += inside**2 / ((items - 1) * (replicates - 1))
    return Term(left, (whole - inside) ** 2 / spread, items - 1.0)


def noise(values: Scores) -> float:
    """Mean square of the interaction of items and replicates; 0 if there is one replicate or one item."""
    replicates, items = values.shape
    if min(replicates, items) < 2:
        return 0.0
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    return float((rest**2).sum() / ((items - 1) * (replicates - 1)))


def join(found: Sequence[Term]) -> tuple[float, float]:
    """(variance, degrees of freedom) of a sum of independent terms, by Satterthwaite.

    If a term has fewer than FEW, that covers too little (88 % with two replicates). Then each term has its own t:
    t^2 = sum of t_k^2 v_k / sum of v_k (Banerjee 1960). It is stated as the degrees of freedom that have this t.
    """
    found = [term for term in found if term.variance > 0]
    variance = sum(term.variance for term in found)
    if not found:
        return 0.0, 1.0
    least = [max(term.df, term.most) for term in found]
    if min(least) >= FEW:
        return variance, variance**2 / sum(term.variance**2 / term.df for term in found)
    tails = [t_quantile(0.5 + LEVEL / 2, df) for df in least]
    square = sum(term.variance * t**2 for term, t in zip(found, tails, strict=True)) / variance
    return variance, _df_of(square**0.5, min(least), max(least))


def _df_of(t: float, low: float, high: float) -> float:
    """The degrees of freedom between `low` and `high` whose 97.5 % quantile is `t`."""
    for _ in range(50):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if t_quantile(0.5 + LEVEL / 2, middle) > t else (low, middle)
    return high


def t_quantile(p: float, df: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def p_value(found: Estimate) -> float:
    """Two-sided p-value of the value being zero."""
    from scipy.special import stdtr

    if found.value is None or found.se is None:
        return 1.0
    if found.se == 0:
        return float(found.value == 0)
    return float(2 * stdtr(found.df, -abs(found.value) / found.se))


def smallest_found(found: Estimate, level: float = LEVEL) -> float | None:
    """The smallest true effect whose interval excludes zero in 80 % of runs like this one."""
    if found.se is None or found.df is None:
        return None
    return (t_quantile(0.5 + level / 2, found.df) + t_quantile(POWER, found.df)) * found.se


def at_zero(values: Scores, base: Scores) -> Scores:
    """Shifts [replicates, items] at a base margin of zero, by their regression on the base model's margin [items].

    Any training pulls margins towards zero, so a shift falls with the base margin. Each replicate's shifts are
    regressed on it by least squares. All models share the items, so contrasts of models are contrasts of these values
    (seemingly unrelated regressions with the same regressor, Zellner 1962). The mean of a row of the result is the
    fitted value at zero. Its spread over items is that of the influence: residuals divided by 1 - leverage (MacKinnon
    and White 1985, HC3).
    """
    items = len(base)
    centred = base - base.mean()
    total = float((centred**2).sum())
    if total == 0:
        return values
    slope = values @ centred / total
    fitted = values.mean(1) - slope * base.mean()
    rest = values - values.mean(1, keepdims=True) - slope[:, None] * centred
    weight = 1 / items - base.mean() * centred / total
    influence = items * weight * rest / (1 - 1 / items - centred**2 / total)
    return np.asarray(fitted[:, None] + influence - influence.mean(1, keepdims=True))


def slope_on(values: Scores, base: Scores) -> float:
    """The slope of the regression in `at_zero`, mean over replicates: nats of shift for each nat of base margin."""
    centred = base - base.mean()
    return float((values.mean(0) @ centred) / (centred**2).sum())


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979). To call all below x found has a chance of at most x of any false finding."""
    order = np.argsort(values)
    adjusted, most = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        most = max(most, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = most
    return adjusted
