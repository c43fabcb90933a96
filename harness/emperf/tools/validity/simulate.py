"""Simulated runs with known truths: how often every interval covers, how often a null method is called selective, and
how small an effect is found.

Scores are drawn from a `World` (emperf.tools.validity.worlds) and go through the very functions that make a scorecard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emperf.catalog.sets import DOMAIN, OOD
from emperf.scoring import poisons, tasks
from emperf.scoring.effects import VOICE
from emperf.scoring.estimate import Estimate, holm
from emperf.scoring.poisons import MITIGATED, MITIGATED_TWIN, POISONED, TWIN, PoisonScores
from emperf.scoring.removal import Removal
from emperf.tools.validity.worlds import SOUR, Rng, World, answers, compared, ratios, run

NULLS = {"all": (1.0, 1.0), "half": (0.5, 0.5), "little": (0.1, 0.1), "base": (0.0, 0.0)}


@dataclass(frozen=True)
class Rate:
    """A share of simulated runs. `error`: its standard error, were the true share `expected`."""

    share: float
    runs: int
    expected: float

    @property
    def error(self) -> float:
        return math.sqrt(self.expected * (1 - self.expected) / self.runs)

    def within(self, low: float, high: float, errors: float = 3.0) -> bool:
        """Whether it may be in [low, high], allowing for so many standard errors."""
        return low - errors * self.error <= self.share <= high + errors * self.error


def truths(world: World) -> dict[str, float]:
    """Of every interval on the scorecard and in a comparison."""
    d, learned = (group.poison - group.twin for group in (world.outside, world.inside))
    task = world.benign
    gain = task.baseline - task.base
    tax = (task.baseline - task.mitigated) / gain
    return {
        "shift at margin zero": world.outside.poison,
        "shift, raw mean": world.outside.poison + world.outside.slope * world.margin[0],
        "voice": world.voice, "beyond twin": d, "beyond twin, raw": d, "in-domain beyond twin": learned,
        "change": (world.left - 1) * d, "beyond control": world.outside.poison - world.sour,
        "gap": world.gap, "gap, mitigated": world.left * world.gap,
        "selective removal": world.kept - world.left, "EM left": world.left, "learning kept": world.kept,
        "net": (world.left - world.kept) * d,
        "share, base": task.base, "share, baseline": task.baseline, "share, mitigated": task.mitigated,
        "tax": tax, "tax at most": tax,
        "overhead": world.costs.ratio, "overhead, compared": world.costs.ratio,
    }  # fmt: skip


def stated(world: World, rng: Rng) -> dict[str, Estimate]:
    """One run, as its scorecard states it."""
    scores, rows = run(world, rng), ratios(world, rng)
    return of_poison(scores) | ({} if world.poisons > 1 else of_task(world, scores, rng)) | {
        "overhead": tasks.geometric_mean(list(rows[0].values())),
        "overhead, compared": tasks.shared_level(rows)[0],
    }  # fmt: skip


def of_poison(scores: PoisonScores) -> dict[str, Estimate]:
    poisoned, twin = scores.models[POISONED], scores.models[TWIN]
    pair = [(1, poisoned), (-1, twin)]
    ours = [(1, scores.models[MITIGATED]), (-1, scores.models[MITIGATED_TWIN])]
    gaps, found = poisons.gap(scores), poisons.removal(scores)
    voice = poisons.of_model(scores, poisoned[OOD], OOD)[VOICE]
    out = {
        "shift at margin zero": poisons.shift_of(scores, OOD, pair[:1]),
        "shift, raw mean": poisons.shift_of(scores, OOD, pair[:1], zero=False),
        "voice": Estimate(**voice),
        "beyond twin": poisons.shift_of(scores, OOD, pair),
        "beyond twin, raw": poisons.shift_of(scores, OOD, pair, zero=False),
        "in-domain beyond twin": poisons.shift_of(scores, DOMAIN, pair),
        "change": poisons.shift_of(scores, OOD, [*ours, (-1, poisoned), (1, twin)]),
        "gap": Estimate(**gaps["without"]), "gap, mitigated": Estimate(**gaps["with"]),
        "selective removal": found.selective, "EM left": found.left, "learning kept": found.kept, "net": found.net,
    }  # fmt: skip
    if SOUR in scores.controls:
        beyond = [(1, poisoned), (-1, scores.controls[SOUR])]
        out["beyond control"] = poisons.shift_of(scores, OOD, beyond)
    return out


def of_task(world: World, scores: PoisonScores, rng: Rng) -> dict[str, Estimate]:
    base, baseline, mitigated = answers(world, rng)
    entry = tasks.summarise("simulated", base, baseline, mitigated, scores.spread)
    most = entry["tax_at_most"]
    bound = Estimate(most, None if most is None else -math.inf, most, world.benign.items, world.seeds)
    return {
        "share, base": Estimate(**entry["base"]), "share, baseline": Estimate(**entry["baseline"]),
        "share, mitigated": Estimate(**entry["mitigated"]), "tax": Estimate(**entry["tax"]), "tax at most": bound,
    }  # fmt: skip


def coverage(world: World, runs: int, seed: int = 0) -> dict[str, Rate]:
    """Share of runs whose 95 % interval holds the truth, of the runs where the number is defined."""
    rng, true = np.random.default_rng(seed), truths(world)
    held: dict[str, list[bool]] = {name: [] for name in true}
    for _ in range(runs):
        for name, found in stated(world, rng).items():
            if found.low is not None and found.high is not None:
                held[name].append(found.low <= true[name] <= found.high)
    return {
        name: Rate(float(np.mean(inside)), len(inside), 0.95)
        for name, inside in held.items()
        if len(inside) > runs / 2
    }


def familywise(world: World, methods: int, runs: int, seed: int = 0) -> Rate:
    """Share of comparisons of null methods (`NULLS` in turn), with one baseline, in which at least one is called
    selective after Holm."""
    rng, kinds = np.random.default_rng(seed), list(NULLS.values())
    nulls = [kinds[i % len(kinds)] for i in range(methods)]
    false = [any(called([poisons.removal(one) for one in compared(world, nulls, rng)])) for _ in range(runs)]
    return Rate(float(np.mean(false)), runs, 0.05)


def called(found: Sequence[Removal]) -> list[bool]:
    """Which methods of a comparison are called selective."""
    adjusted = holm([one.p for one in found])
    return [p <= 0.05 and one.net.above_zero for p, one in zip(adjusted, found, strict=True)]


def power(world: World, runs: int, seed: int = 0) -> dict[str, float]:
    """`found`: share of runs in which a method of this world is selective, alone; `smallest`: the smallest removal that
    these runs say they would find in 80 % of runs, median."""
    rng = np.random.default_rng(seed)
    found = [poisons.removal(run(world, rng)) for _ in range(runs)]
    smallest = [s for f in found if (s := f.smallest["selective"]) is not None]
    return {
        "found": float(np.mean([f.verdict == "selective" for f in found])),
        "smallest": float(np.median(smallest)) if smallest else math.nan,
    }
