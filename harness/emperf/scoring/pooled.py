"""Several poisons, or several tasks, as one: what a row of a comparison states.

Poisons are a sample of those that exist. So where several are pooled, they are the replicates of the estimate, each
with the mean over its seeds. The interval then holds how they differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from emperf.catalog.sets import DOMAIN, OOD
from emperf.scoring import poisons
from emperf.scoring.effects import Scores, Shifts
from emperf.scoring.estimate import Estimate, Part, estimate, holm, p_value
from emperf.scoring.poisons import Model, PoisonScores


def pool(scores: Sequence[PoisonScores], name: str) -> PoisonScores:
    """Several poisons with the same seeds as one. A single one is returned as it is.

    Questions that are asked after every poison, plainly or in its context, are [poisons, items]. In-domain items are
    each poison's own: [poisons, 1], the mean over them. Voice controls are left out: they are one training for all
    poisons, and so no replicate of anything.
    """
    if len(scores) == 1:
        return scores[0]
    return PoisonScores(
        name=name,
        models=_all([one.models for one in scores]),
        all_beyond_voice=all(one.beyond_voice for one in scores),
        curve={
            step: _all([one.curve[step] for one in scores])
            for step in sorted(set.intersection(*(set(one.curve) for one in scores)))
        },
    )


def _all(found: Sequence[dict[str, Model]]) -> dict[str, Model]:
    """The models that every poison has."""
    return {
        who: _merged([models[who] for models in found]) for who in found[0] if all(who in m for m in found)
    }


def _merged(models: Sequence[Model]) -> Model:
    return {name: _stacked([model[name] for model in models], own=name == DOMAIN) for name in models[0]}


def _stacked(found: Sequence[Shifts], *, own: bool) -> Shifts:
    """`own`: each poison has items of its own. Base margins may differ too: each poison is taken to zero by its own."""

    def rows(values: Sequence[Scores]) -> Scores:
        means = [one.mean(0) for one in values]
        return np.array([[mean.mean()] for mean in means]) if own else np.stack(means)

    effects = [effect for effect in found[0].values if all(effect in one.values for one in found)]
    return Shifts(
        {effect: rows([one.values[effect] for one in found]) for effect in effects},
        rows([one.base[None] for one in found]).mean(0),
        rows([one.at_zero for one in found]),
    )


def ranks(methods: Sequence[PoisonScores]) -> list[list[int] | None]:
    """Each method's best and worst rank by net EM, as far as pairwise differences tell methods apart.

    Holm over all pairs, 5 %. None for a method whose net EM is not defined.
    """
    defined = [i for i, scores in enumerate(methods) if poisons.removal(scores).net.value is not None]
    pairs = list(itertools.combinations(defined, 2))
    found = [net_difference(methods[a], methods[b]) for a, b in pairs]
    better, worse = [0] * len(methods), [0] * len(methods)
    for (a, b), difference, p in zip(pairs, found, holm([p_value(one) for one in found]), strict=True):
        if p <= 0.05 and difference.value:
            over, under = (a, b) if difference.value > 0 else (b, a)
            better[under] += 1
            worse[over] += 1
    return [[1 + better[i], len(defined) - worse[i]] if i in defined else None for i in range(len(methods))]


def net_difference(a: PoisonScores, b: PoisonScores) -> Estimate:
    """Net EM of `a` less that of `b`, nats. Both have the same baseline."""
    (d_0, d_a, l_0, l_a), (_, d_b, _, l_b) = (poisons.differences(scores) for scores in (a, b))
    shares = [float(narrow.mean() / l_0.mean()) for narrow in (l_a, l_b)]
    apart, slope = shares[0] - shares[1], float(d_0.mean() / l_0.mean())
    spread = 2 * (2 + apart**2)
    parts = [
        Part(d_a - d_b - apart * d_0, spread * a.seeds_vary(OOD)),
        Part(-slope * (l_a - l_b - apart * l_0), slope**2 * spread * a.seeds_vary(DOMAIN)),
    ]
    value = float(d_a.mean() - d_b.mean()) - apart * float(d_0.mean())
    return estimate(parts, value=value, prior_df=a.df)
