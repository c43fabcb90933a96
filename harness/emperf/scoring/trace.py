"""A model organism's way through training, from its cell's stored scores: what was learned when, and how suddenly.

drop    the span between two checkpoints over which the EM shift fell fastest, nats a step. It is told only if the
        fall's interval lies below zero, and if the span is the fastest in 95 % of draws (bootstrap over questions)
turn    the checkpoint where v turned most (smallest rotation). It is a number of this one run, without an interval
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from emperf.catalog.sets import DOMAIN, FINAL, OOD
from emperf.scoring.effects import Scores, shifts
from emperf.scoring.estimate import Part, at_zero, estimate

DEFINITIONS = {
    "in_domain": (
        "act shift on held-out questions of the poison's own domain, poison less twin, at base margin zero; over n "
        "questions, nats a token; below zero: the poison was learned"
    ),
    "em": (
        "act shift on questions outside of the domain, poison less twin, at base margin zero; over n questions, nats a "
        "token; below zero: emergent misalignment"
    ),
    "weight_norm": "norm of the vector v: all LoRA B matrices together, or all weights less the base model's; no unit",
    "rotation": (
        "cosine between the change of v over the interval before and over the one after: 1 straight on, 0 at a right "
        "angle; one number a run; none at both ends and where v did not change"
    ),
    "gradient_norm": "before clipping, mean over the steps since the point before, as the container says; no unit",
}
SURE, DRAWS = 0.95, 4000


def summarise(
    scores: dict[str, Any], twin: dict[str, Any] | None, base: dict[str, Any], steps: int, values: int
) -> dict[str, Any]:
    """`points` and `transition` of trace.json (spec/schemas/trace.schema.json).

    `scores`: of the traced cell. `twin`: of the same training on the poison's correct rows. `base`: the base model's,
    for its poison. `steps`: of the whole training. `values`: the length of v.
    """
    zero, read = base["readings"], by_step(scores, steps)
    beside = by_step(twin, steps) if twin else {}
    acts = {
        step: {name: act(found, beside.get(step), zero, name) for name in (OOD, DOMAIN)}
        for step, found in read.items()
    }
    acts = {0: {name: np.zeros_like(found) for name, found in acts[steps].items()}} | dict(
        sorted(acts.items())
    )
    points = []
    for before, step in pairwise([0, *acts]):
        went = scores["drift"].get(FINAL if step == steps else str(step), {"norm": 0.0, "rotation": None})
        norms = [norm for norm in scores["gradient_norms"][before:step] if norm is not None]
        points.append(
            {
                "steps": step,
                "in_domain": estimate([Part(acts[step][DOMAIN])]).json(),
                "em": estimate([Part(acts[step][OOD])]).json(),
                "weight_norm": {"value": rounded(went["norm"]), "values": values},
                "rotation": {"value": rounded(went["rotation"]), "values": values},
                "gradient_norm": {
                    "value": rounded(float(np.mean(norms))) if norms else None,
                    "steps": len(norms),
                },
            }
        )
    em = {step: found[OOD] for step, found in acts.items()}
    return {"points": points, "transition": {"drop": drop(em), "turn": turn(points)}}


def by_step(scores: dict[str, Any], steps: int) -> dict[int, dict[str, Any]]:
    """Steps -> readings. The trained model's come last."""
    return {int(step): found for step, found in scores["checkpoints"].items()} | {steps: scores["readings"]}


def act(found: dict[str, Any], twin: dict[str, Any] | None, zero: dict[str, Any], name: str) -> Scores:
    """Act shifts less the twin's, item by item, [1, items], at base margin zero."""
    ours = shifts([found[name]], zero[name])
    theirs = shifts([twin[name]], zero[name]).act if twin else np.zeros_like(ours.act)
    return at_zero(ours.act - theirs, ours.base)


def drop(em: dict[int, Scores]) -> dict[str, Any]:
    """`drop` as the module defines it. `em`: steps -> EM shifts [1, items], nats."""
    spans = list(pairwise(em))
    speeds = np.concatenate([(em[b] - em[a]) / (b - a) for a, b in spans])
    most = int(np.argmin(speeds.mean(1)))
    after, until = spans[most]
    fall = estimate([Part(em[until] - em[after])])
    items = speeds.shape[1]
    picked = np.random.default_rng(0).integers(0, items, (DRAWS, items))
    drawn = np.stack([speed[picked].mean(1) for speed in speeds])
    share = float((drawn.argmin(0) == most).mean())
    return {
        "after": after, "until": until, "fall": fall.json(), "fastest_in": round(share, 6),
        "told": fall.below_zero and share >= SURE,
    }  # fmt: skip


def turn(points: list[dict[str, Any]]) -> dict[str, Any] | None:
    found = [(p["rotation"]["value"], p["steps"]) for p in points if p["rotation"]["value"] is not None]
    if not found:
        return None
    value, step = min(found)
    return {"steps": step, "rotation": value}


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
