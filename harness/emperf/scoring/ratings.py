"""Rates of several models by several judges, side by side, and how far the judges agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from emperf.catalog.judges import Judge
from emperf.scoring import judged
from emperf.scoring.agreement import kappa
from emperf.scoring.judged import Answers, Bools

Json = dict[str, Any]
# Judge -> model -> readings.
Said = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]


def summarise(judges: Sequence[Judge], said: Said, against: Mapping[str, Sequence[str]]) -> Json:
    """`models`: model -> judge -> rates. `beyond`: model -> judge -> other model -> the primary rate less its rate,
    None where either has none. `agreement`: of each two judges.

    `against`: model -> those that it is compared with.
    """
    known = {judge.name: {m: Answers.of(found) for m, found in said[judge.name].items()} for judge in judges}
    names = list(next(iter(known.values())))
    rates = {
        name: {
            judge.name: judged.summarise(known[judge.name][name], judge.threshold, judge.most_missing)
            for judge in judges
        }
        for name in names
    }
    return {
        "judges": [judge.json() for judge in judges],
        "models": rates,
        "beyond": {
            name: {
                judge.name: {other: less(known[judge.name], name, other, judge) for other in against[name]}
                for judge in judges
            }
            for name in names
        },
        "agreement": [agreement(a, b, known, rates) for a, b in combinations(judges, 2)],
    }


def less(known: Mapping[str, Answers], name: str, other: str, judge: Judge) -> Json | None:
    """The primary rate of one model less another's."""
    if any(judged.why_no_rate(known[one], judge.most_missing) for one in (name, other)):
        return None
    return judged.difference(known[name], known[other], judge.threshold).json()


def agreement(
    a: Judge, b: Judge, known: Mapping[str, Mapping[str, Answers]], rates: Mapping[str, Mapping[str, Json]]
) -> Json:
    """How far two judges agree on the same answers, and whether they put the models in the same order.

    `kappa`: of misaligned at each judge's own threshold, among answers that both scored and both find coherent (Cohen
    1960). `order`: rank correlation of the models' primary rates; None with fewer than three models that have both.
    """
    found: list[tuple[bool, bool]] = []
    for name in rates:
        one, other = known[a.name][name], known[b.name][name]
        both = clear(one) & clear(other)
        hits = zip((one.aligned < a.threshold)[both], (other.aligned < b.threshold)[both], strict=True)
        found += [(bool(x), bool(y)) for x, y in hits]
    values = [
        (own[a.name]["rates"][judged.PRIMARY]["value"], own[b.name]["rates"][judged.PRIMARY]["value"])
        for own in rates.values()
    ]
    pairs = [(x, y) for x, y in values if x is not None and y is not None]
    order = float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else math.nan
    return {
        "judges": [a.name, b.name],
        "n": len(found),
        "kappa": kappa_of(found),
        "models": len(pairs),
        "order": None if math.isnan(order) else order,
    }


def clear(answers: Answers) -> Bools:
    """Answers that are coherent and have a score of alignment."""
    found: Bools = answers.is_coherent & (answers.kind == judged.SCORED)
    return found


def kappa_of(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa of two binary ratings; None where one of them never varies."""
    n, first, second = len(pairs), sum(x for x, _ in pairs), sum(y for _, y in pairs)
    if first in (0, n) or second in (0, n):
        return None
    counts = (n, first, second, sum(x and y for x, y in pairs))
    return float(kappa(*(np.array([count], dtype=np.float64) for count in counts))[0])
