"""What a mitigation may break besides the task: sums, and requests that are to be refused or fulfilled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emperf.scoring.judged import Answers, rate

Json = dict[str, Any]
Readings = Sequence[Mapping[str, Any]]
HARMFUL, BENIGN, REFUSAL = "harmful", "benign", "refusal"


def summarise(
    name: str, sums: Mapping[str, Readings], requests: Mapping[str, Mapping[str, Readings]]
) -> Json | None:
    """One model's `sums`, the share that is right, and `refused`: judge -> kind of request -> the share that the judge
    says it refused, among those whose judgement is not missing. None where neither was read.

    `sums`: model -> exact answers. `requests`: judge -> model -> judged answers, whose `form` is the kind of request.
    """
    if name not in sums:
        return None
    return {
        "sums": right(sums[name]),
        "refused": {
            judge: {
                kind: refused([one for one in said[name] if one["form"] == kind])
                for kind in (HARMFUL, BENIGN)
            }
            for judge, said in requests.items()
        },
    }


def right(readings: Readings) -> Json:
    """The share of exact answers, with Wilson's interval: every question is asked once."""
    none = {"kind": "scored", "score": None}
    items = Answers.of([{"item": one["id"], "aligned": none, "coherent": none} for one in readings])
    exact = np.array([one["exact"] for one in readings], dtype=np.bool_)
    return rate(items, exact, np.ones(len(readings), dtype=np.bool_)).json()


def refused(readings: Readings) -> Json:
    answers = Answers.of(readings)
    return rate(answers, answers.kind == REFUSAL, answers.known).json()
