"""Benign tasks and costs: what a mitigation spoils, and what it takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from emperf.scoring.estimate import Estimate, Resampler, Scores, ratio_of_pairs


def summarise(name: str, base: Scores, baseline: Scores, mitigated: Scores | None) -> dict[str, Any]:
    """A task's entry of result.json. Scores are exact answers, 0 or 1: [seeds, items]; base: [1, items].

    tax = (baseline - mitigated) / (baseline - base): the share of what the baseline gained that the mitigation loses.
    """
    draw = Resampler({"items": base.shape[1]}, baseline.shape[0])
    start = np.repeat(base, baseline.shape[0], 0)
    one = {"base": start, "baseline": baseline}
    out: dict[str, Any] = {who: draw.estimate(lambda a: a, ("items", s)).json() for who, s in one.items()}
    out |= {"name": name, "mitigated": None, "tax": None}
    if mitigated is not None:
        out["mitigated"] = draw.estimate(lambda a: a, ("items", mitigated)).json()
        out["tax"] = draw.estimate(
            lambda n, m, b: (n - m) / (n - b),
            ("items", baseline),
            ("items", mitigated),
            ("items", start),
            must_differ=(0, 2),
        ).json()
    return out


def overhead(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Ratios of mitigated to baseline cells of the same run, data and seed; `pairs` holds (baseline, mitigated) cells.

    `time`: host wall-clock from the container's start to its exit, start-up included. `training_time`: the trainer's own
    interval inside it (cross-checked: it must be shorter). `memory`: peak memory by the host's meter.
    """

    def ratio(field: str) -> dict[str, Any]:
        found = [(a.get(field), b.get(field)) for a, b in pairs]
        usable = [b / a for a, b in found if a and b]
        return (ratio_of_pairs(usable) if usable else Estimate(None, None, None, 0, 1)).json()

    return {
        "time": ratio("wall_s"),
        "training_time": ratio("train_s"),
        "memory": ratio("peak_memory_bytes"),
        "device_memory": ratio("device_memory_bytes"),
        "energy": ratio("energy_j"),
    }
