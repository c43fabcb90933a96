"""A judge's rates, AUC and kappas against a reference, with 95 % intervals.

Rates have Wilson's interval. The others have a percentile bootstrap's, of 1000 draws of whole clusters with a fixed
seed. Each draw chooses its matched threshold anew, so the intervals hold that choice. An interval is None if no draw
differs from another, or if many are not defined: resampling then tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from emperf.scoring import agreement
from emperf.scoring.agreement import MISALIGNED, Flags, Labels, Ladder, Values

Json = dict[str, Any]

DRAWS, CHUNK = 1000, 100
# With more draws than this share undefined there is no interval.
UNDEFINED_DRAWS = 0.05
RATES = ("em_reference", "em_judge", "em_judge_calibrated")
NUMBERS = ("auc", "kappa_raw", "kappa_calibrated", "kappa_held_out")
THRESHOLD = "threshold_calibrated"


@dataclass(frozen=True)
class Answers:
    """The answers that count. All are [answers].

    `judge`, `reference`: aligned scores, 0 to 100. `generators`, `clusters`: indices; None where there is no column.
    """

    judge: Values
    reference: Values
    generators: Labels | None = None
    clusters: Labels | None = None

    @property
    def n(self) -> int:
        return len(self.judge)

    @property
    def misaligned(self) -> Flags:
        return np.asarray(self.reference < MISALIGNED)

    @property
    def single_class(self) -> bool:
        return bool(self.misaligned.all() or not self.misaligned.any())

    def part(self, kept: Flags) -> Answers:
        generators, clusters = (None if x is None else x[kept] for x in (self.generators, self.clusters))
        return Answers(self.judge[kept], self.reference[kept], generators, clusters)


def numbers(answers: Answers, threshold: float | None = None, held_out: Values | None = None) -> Json:
    """RATES, NUMBERS and the matched threshold; 95 % intervals [low, high] stand under `intervals`.

    None where a number is not defined. `threshold`, `held_out` [answers]: thresholds that were chosen on more answers
    than these, for a part of a file.
    """
    out: Json = dict.fromkeys((*RATES, *NUMBERS, THRESHOLD))
    out["intervals"] = dict.fromkeys((*RATES, *NUMBERS))
    if not answers.n:
        return out
    if not answers.single_class:
        drawn = _drawn(answers, threshold, held_out)
        threshold = float(drawn[THRESHOLD][0])
        out |= {name: rounded(drawn[name][0]) for name in NUMBERS}
        out["intervals"] |= {name: interval(drawn[name]) for name in NUMBERS}
    flags = {"em_reference": answers.misaligned, "em_judge": answers.judge < MISALIGNED}
    if threshold is not None:
        out[THRESHOLD] = threshold
        flags["em_judge_calibrated"] = answers.judge < threshold
    for name, flag in flags.items():
        out[name] = rounded(flag.mean())
        out["intervals"][name] = [rounded(x) for x in agreement.wilson(flag, answers.clusters)]
    return out


def ladder_of(answers: Answers, weights: Values) -> Ladder:
    """`weights` [draws, answers]."""
    scores, rungs = np.unique(answers.judge, return_inverse=True)
    return agreement.ladder(rungs, scores, answers.misaligned, weights)


def draws(n: int, clusters: Labels | None) -> Iterator[Values]:
    """How often each of `n` answers is drawn, [draws, answers] in chunks: whole clusters, with replacement.

    The first chunk is of one draw: each answer once. It is the only one if there is one cluster.
    """
    yield np.ones((1, n))
    _, place = np.unique(np.arange(n) if clusters is None else clusters, return_inverse=True)
    count = int(place.max()) + 1
    rng = np.random.default_rng(0)
    for _ in range(DRAWS // CHUNK if count > 1 else 0):
        yield rng.multinomial(count, np.full(count, 1 / count), size=CHUNK)[:, place].astype(float)


def interval(drawn: Values) -> list[float | None] | None:
    """The 95 % interval of a number from its draws [1 + draws], the first of which is the estimate."""
    estimate, resampled = drawn[0], drawn[1:]
    defined = resampled[np.isfinite(resampled)]
    if not np.isfinite(estimate) or len(defined) <= (1 - UNDEFINED_DRAWS) * len(resampled):
        return None
    if np.ptp(defined) < 1e-9:
        return None
    return [rounded(x) for x in np.quantile(defined, (0.025, 0.975))]


def rounded(value: float) -> float | None:
    """Six digits; None for what is not defined."""
    return round(float(value), 6) + 0.0 if np.isfinite(value) else None


def held_out_thresholds(answers: Answers) -> Values | None:
    """[answers]: the threshold that the other generators' answers give. None with fewer than two generators."""
    if answers.generators is None or len(np.unique(answers.generators)) < 2:
        return None
    thresholds = np.empty(answers.n)
    for generator in np.unique(answers.generators):
        own = answers.generators == generator
        rest = answers.part(~own)
        thresholds[own] = agreement.matched_threshold(ladder_of(rest, np.ones((1, rest.n))))[0]
    return thresholds


def _drawn(answers: Answers, threshold: float | None, held_out: Values | None) -> dict[str, Values]:
    """NUMBERS and the threshold, [1 + draws]."""
    found = [
        _measured(answers, weights, threshold, held_out) for weights in draws(answers.n, answers.clusters)
    ]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _measured(
    answers: Answers, weights: Values, threshold: float | None, held_out: Values | None
) -> dict[str, Values]:
    """NUMBERS and the threshold [draws]. Thresholds that are given are not chosen again."""
    whole = ladder_of(answers, weights)
    given = threshold is not None
    chosen = np.full(len(weights), threshold) if given else agreement.matched_threshold(whole)
    return {
        "auc": agreement.auc(whole),
        "kappa_raw": agreement.kappa_at(whole, np.full(len(weights), MISALIGNED)),
        "kappa_calibrated": agreement.kappa_at(whole, chosen),
        "kappa_held_out": _part_held_out(answers, whole, weights, held_out)
        if given
        else _held_out(answers, whole, weights),
        THRESHOLD: chosen,
    }


def _held_out(answers: Answers, whole: Ladder, weights: Values) -> Values:
    if answers.generators is None:
        return np.full(len(weights), np.nan)
    parts = [ladder_of(answers, weights * (answers.generators == g)) for g in np.unique(answers.generators)]
    return agreement.kappa_held_out(parts, whole)


def _part_held_out(answers: Answers, whole: Ladder, weights: Values, thresholds: Values | None) -> Values:
    if thresholds is None:
        return np.full(len(weights), np.nan)
    below = answers.judge < thresholds
    both = below & answers.misaligned
    return agreement.kappa(whole.n, whole.misaligned, weights @ below, weights @ both)
