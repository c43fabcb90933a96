"""Benign tasks and costs: what a mitigation spoils, and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from emperf.catalog import SeedSpread
from emperf.scoring.effects import Scores
from emperf.scoring.estimate import (
    LEVEL,
    Estimate,
    Part,
    Term,
    estimate,
    join,
    t_quantile,
    terms,
    undefined,
)  # fmt: skip
from emperf.scoring.ratio import fieller

CERTAIN = 2.0


def summarise(
    name: str, base: Scores, baseline: Scores, mitigated: Scores | None, spread: SeedSpread | None = None
) -> dict[str, Any]:
    """A task's entry of result.json. Scores are exact answers, 0 or 1, [seeds, items]; `base` is [1, items].

    tax = (baseline - mitigated) / (baseline - base): the share of the baseline's gain that the mitigation loses.
    `tax_at_most`: its one-sided 95 % upper bound, for non-inferiority. The mitigation loses no more than that.
    """
    out: dict[str, Any] = {"base": share(base, None).json(), "baseline": share(baseline, spread).json()}
    out |= {"name": name, "mitigated": None, "tax": None, "tax_at_most": None}
    if mitigated is not None:
        out["mitigated"] = share(mitigated, spread).json()
        out["tax"] = tax(base, baseline, mitigated, spread).json()
        bound = tax(base, baseline, mitigated, spread, level=2 * LEVEL - 1).high
        out["tax_at_most"] = None if bound is None else round(bound, 6)
    return out


def share(scores: Scores, spread: SeedSpread | None) -> Estimate:
    """The mean of 0/1 scores [seeds, items].

    The interval is Wilson's, with the number of answers that the variance amounts to, as for clustered samples (Korn
    and Graubard 1998). Near 0 and 1 a symmetric one covers too little. It is exact if all scores are equal.
    """
    seeds, items = scores.shape
    value = float(scores.mean())
    if value in (0.0, 1.0):
        bound = rarest(items)
        return Estimate(value, *((0.0, bound) if value == 0 else (1 - bound, 1.0)), items, seeds)
    prior, df = _prior(spread)
    variance, df = join(terms([Part(scores, prior)], df))
    if variance == 0:
        # The seeds agree on every item, and the items' term was lost in their noise.
        variance, df = value * (1 - value) / items, items - 1.0
    square = t_quantile(0.5 + LEVEL / 2, df) ** 2 * variance / (value * (1 - value))
    centre = (value + square / 2) / (1 + square)
    half = (square * value * (1 - value) + square**2 / 4) ** 0.5 / (1 + square)
    return Estimate(value, centre - half, centre + half, items, seeds, variance**0.5, df)


def tax(
    base: Scores,
    baseline: Scores,
    mitigated: Scores,
    spread: SeedSpread | None = None,
    *,
    level: float = LEVEL,
) -> Estimate:
    """The tax, by Fieller. Undefined unless the baseline's gain lies two standard errors above zero."""
    gain, lost = baseline - base, baseline - mitigated
    prior, df = _prior(spread)
    found = estimate([Part(gain, prior)], prior_df=df)
    if found.value is None or found.se is None or found.value <= CERTAIN * found.se:
        return undefined(gain.shape[1], gain.shape[0])
    bound = rarest(gain.shape[1]) / found.value
    if np.array_equal(baseline, mitigated):
        return Estimate(0.0, -bound, bound, gain.shape[1], gain.shape[0])
    if np.array_equal(np.broadcast_to(base, mitigated.shape), mitigated):
        return Estimate(1.0, 1 - bound, 1 + bound if base.any() else 1.0, gain.shape[1], gain.shape[0])
    return fieller(lost, gain, prior=lambda r: prior * ((1 - r) ** 2 + 1), prior_df=df, level=level)


def rarest(items: int) -> float:
    """The share that shows up in none of `items` with probability 0.025 (Clopper and Pearson, 1934)."""
    return float(1 - 0.025 ** (1 / items))


def _prior(spread: SeedSpread | None) -> tuple[float, float]:
    return (spread.task**2, spread.task_df) if spread else (0.0, 0.0)


FIELDS = {
    "time": "wall_s",
    "training_time": "train_s",
    "memory": "peak_memory_bytes",
    "device_memory": "device_memory_bytes",
    "energy": "energy_j",
}

Pairs = list[tuple[dict[str, Any], dict[str, Any]]]


def overhead(pairs: Pairs, *, mended: bool = False) -> dict[str, Any]:
    """Ratios of mitigated to baseline cells of the same data and seed. `pairs`: (baseline, mitigated).

    `time`: host wall-clock from the container's start to its exit, start-up included. `training_time`: the trainer's
    own interval inside it; it is cross-checked to be shorter. `memory`: peak by the host's meter. `mended`: a cure,
    which comes after the training that it mends. Its time and energy are added to the baseline's, and the greater of
    the two peaks counts.
    """
    return {
        cost: geometric_mean(list(ratios(pairs, field, mended=mended).values())).json()
        for cost, field in FIELDS.items()
    }


def ratios(pairs: Pairs, field: str, *, mended: bool) -> dict[str, float]:
    """The baseline cell's key -> ratio, for the pairs that have this reading."""

    def whole(baseline: float, own: float) -> float:
        if not mended:
            return own
        return max(baseline, own) if "memory" in field else baseline + own

    found = {a["key"]: (a.get(field), b.get(field)) for a, b in pairs}
    return {key: whole(a, b) / a for key, (a, b) in found.items() if a and b}


def geometric_mean(values: Sequence[float]) -> Estimate:
    """The geometric mean of paired ratios. From two pairs on it has Student's t interval, on their logarithms."""
    if not values:
        return undefined(0, 1)
    logs = np.log(values)
    if len(logs) < 2:
        return Estimate(float(np.exp(logs.mean())), None, None, len(logs), 1)
    return _exponential(
        float(logs.mean()), [Term(float(logs.var(ddof=1)) / len(logs), len(logs) - 1.0)], len(logs)
    )


def shared_level(rows: Sequence[dict[str, float]]) -> list[Estimate]:
    """Geometric means of several methods' ratios over the same baseline cells (key -> ratio), all methods together.

    log ratio = method + baseline cell + noise. C is the variance of cells, E that of noise. A slow baseline cell lowers
    all its ratios, so a method's mean over n cells varies by (C + E) / n. The mean square of the cells' means over m
    methods is C + E / m. That leaves (1 - 1 / m) E, which comes from the noise pooled over all methods. A method that
    lacks a cell is estimated from its own pairs.
    """
    keys = set().union(*rows)
    whole = [row for row in rows if set(row) == keys]
    if len(keys) < 2 or len(whole) < 2:
        return [geometric_mean(list(row.values())) for row in rows]
    table = np.log([[row[key] for key in sorted(keys)] for row in whole])
    methods, cells = table.shape
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    df = (methods - 1) * (cells - 1)
    noise = float((rest**2).sum() / df)
    level = float(table.mean(0).var(ddof=1))
    found = [Term((1 - 1 / methods) * noise / cells, df), Term(level / cells, cells - 1.0)]
    return [
        _exponential(float(np.log(list(row.values())).mean()), found, cells)
        if set(row) == keys
        else geometric_mean(list(row.values()))
        for row in rows
    ]


def _exponential(log: float, found: Sequence[Term], pairs: int) -> Estimate:
    variance, df = join(found)
    half = t_quantile(0.5 + LEVEL / 2, df) * variance**0.5
    return replace(
        Estimate(float(np.exp(log)), None, None, pairs, 1),
        low=float(np.exp(log - half)),
        high=float(np.exp(log + half)),
    )
