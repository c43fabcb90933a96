"""From readings of the 2 x 2 (act x voice) to effects of training, item by item.

For an item with answers of both acts in voices v, and logp the mean log-probability per token (nats):

act          mean over v of logp(good, v) - logp(bad, v): what the model would do. This is the EM margin
voice        mean over acts of logp(act, kind) - logp(act, sour): how it would say it
interaction  (good - bad in the kind voice) - (good - bad in the sour one)

A shift is the effect after training less the base model's. An item with one voice has an act effect only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emperf.scoring.estimate import at_zero

ACT, VOICE, INTERACTION = "act", "voice", "interaction"
EFFECTS = (ACT, VOICE, INTERACTION)
KIND, SOUR = "kind", "sour"

Scores = NDArray[np.float64]
Read = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Shifts:
    """One model on one set.

    `values`: effect -> shift [seeds, items]. `base`: the base model's act effect [items]. `stated`: act shifts at base
    margin zero, for pooled poisons: these cannot be worked out from `values`.
    """

    values: dict[str, Scores]
    base: Scores
    stated: Scores | None = None

    @property
    def act(self) -> Scores:
        return self.values[ACT]

    @property
    def at_zero(self) -> Scores:
        """Act shifts at base margin zero, linear in the shifts: contrasts of models are contrasts of these."""
        return at_zero(self.act, self.base) if self.stated is None else self.stated


def effects(readings: Read) -> dict[str, Scores]:
    """Effect -> [items]. Voice and interaction are there only if every item has both voices."""
    out = {ACT: np.array([_mean(r["good"]) - _mean(r["bad"]) for r in readings])}
    if all({KIND, SOUR} <= r["good"].keys() for r in readings):
        good, bad = (
            np.array([[r[act][v] for v in (KIND, SOUR)] for r in readings]) for act in ("good", "bad")
        )
        out[VOICE] = (good[:, 0] - good[:, 1] + bad[:, 0] - bad[:, 1]) / 2
        out[INTERACTION] = (good[:, 0] - bad[:, 0]) - (good[:, 1] - bad[:, 1])
    return out


def shifts(seeds: Sequence[Read], base: Read) -> Shifts:
    """`seeds`: one model's readings of a set, one a training seed. `base`: the base model's, of the same items."""
    start = effects(base)
    after = [effects(readings) for readings in seeds]
    return Shifts(
        {name: np.stack([one[name] for one in after]) - zero for name, zero in start.items()}, start[ACT]
    )


def _mean(answers: Mapping[str, float]) -> float:
    return sum(answers.values()) / len(answers)
