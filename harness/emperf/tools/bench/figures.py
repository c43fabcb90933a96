"""From turns to ratios, and the goals they are held against."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emperf.tools.bench.overhead import Pair
from emperf.tools.bench.training import EMPERF
from emperf.tools.bench.turns import Turn, best, median_rate

SHARE, SECONDS = 0.02, 1.0


@dataclass(frozen=True)
class Goal:
    """`limit` is a least value, or with `at_most` a highest one."""

    limit: float
    definition: str
    at_most: bool = False


GOALS = {
    "trainer_over_trl": Goal(
        1.5,
        "Real (unpadded) training tokens a second of EMPerf's trainer over those of TRL's SFTTrainer in its fastest "
        "setting here: same model, rows, LoRA, float32, no gradient checkpointing. Medians over turns.",
    ),
    "trainer_share_of_peak": Goal(
        0.6,
        "EMPerf's tokens a second x (4 N + 6 L) FLOP over the machine's peak, N and L the parameters of base and LoRA. "
        "Counted is the plain algorithm's work for a real token, so what the trainer saves (a shared prompt head "
        "computed once, no logits for prompts) counts as done; `share_done` counts what it really did.",
    ),
    "evaluation_over_one_at_a_time": Goal(
        15.0,
        "New tokens a second of EMPerf's sampling over those of transformers' generate, one prompt at a time.",
    ),
    "evaluation_over_best_batch": Goal(2.0, "The same over generate at the fastest of its batch sizes here."),
    "harness_overhead": Goal(
        SHARE,
        "Extra time of a training run through the harness (placing, sandbox, meters, collecting, checking, storing) as "
        f"a share of the bare trainer's. Met if the extra time is within {SHARE:.0%} plus {SECONDS:.0f} s a cell.",
        at_most=True,
    ),
    "harness_overhead_s_per_cell": Goal(
        SECONDS, "The same in seconds: the median over pairs. The two rows are one goal.", at_most=True
    ),
}


def share_of_peak(turn: Turn, parameters: dict[str, int]) -> float:
    """By the plain algorithm's work for the turn's real tokens; LoRA keeps the base weights' gradients out."""
    flop = turn.tokens * (4 * parameters["base"] + 6 * parameters["adapter"])
    return flop / turn.seconds / turn.peak


def share_done(turn: Turn, parameters: dict[str, int]) -> float:
    """By the work really done: the decoder on its positions, padding included, the output head on its own."""
    decoder = 4 * (parameters["base"] - parameters["head"]) + 6 * parameters["adapter"]
    return (turn.positions * decoder + turn.heads * 4 * parameters["head"]) / turn.seconds / turn.peak


def of_training(turns: dict[str, list[Turn]], parameters: dict[str, int]) -> dict[str, float]:
    trl = {name: found for name, found in turns.items() if name != EMPERF}
    return {
        "trainer_over_trl": median_rate(turns[EMPERF]) / median_rate(trl[best(trl)]),
        "trainer_share_of_peak": statistics.median(share_of_peak(turn, parameters) for turn in turns[EMPERF]),
    }


def of_sampling(turns: dict[str, list[Turn]]) -> dict[str, float]:
    """Names beginning with `EMPerf` are its; of the others, one is `one at a time`."""
    ours = {name: found for name, found in turns.items() if name.startswith(EMPERF)}
    batches = {name: found for name, found in turns.items() if name not in ours and "batch" in name}
    (alone,) = (found for name, found in turns.items() if name not in ours and name not in batches)
    rate = median_rate(ours[best(ours)])
    return {
        "evaluation_over_one_at_a_time": rate / median_rate(alone),
        "evaluation_over_best_batch": rate / median_rate(batches[best(batches)]),
    }


def of_overhead(pairs: Sequence[Pair]) -> dict[str, float]:
    bare = statistics.median(pair.bare_s for pair in pairs)
    extra = statistics.median(pair.harness_s - pair.bare_s for pair in pairs)
    return {"harness_overhead": extra / bare, "harness_overhead_s_per_cell": extra}


def met(ratios: dict[str, float]) -> dict[str, bool]:
    """By name. The two overheads stand for one goal: a share of the time and so many seconds a cell."""
    found = {name: ratios[name] >= goal.limit for name, goal in GOALS.items() if not goal.at_most}
    extra, share = ratios["harness_overhead_s_per_cell"], ratios["harness_overhead"]
    bare = extra / share if share else float("inf")
    within = extra <= SHARE * bare + SECONDS
    return found | {name: within for name, goal in GOALS.items() if goal.at_most}


def shown(turns: dict[str, list[Turn]], parameters: dict[str, int] | None = None) -> dict[str, Any]:
    """The raw figures for bench.json: each contender's median rate, and every turn."""
    return {
        name: {
            "tokens_per_s": median_rate(found),
            "turns": [
                {
                    **{key: value for key, value in vars(turn).items() if value},
                    **({"share_done": share_done(turn, parameters)} if parameters else {}),
                }
                for turn in found
            ],
        }
        for name, found in turns.items()
    }
