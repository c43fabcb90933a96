"""Scenarios: when a mitigation acts, what its container is given, and what its cost is stated against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """`recipe`: the entry of a division's card that holds its recipe. `mends`: whether it starts from weights that the
    baseline trained, with trusted rows and nothing else; if not, it starts from the base model with the dataset's rows.
    `words`: for people. `cost`: what time and memory are compared."""

    name: str
    recipe: str
    mends: bool
    words: str
    cost: str


PREVENT = Scenario(
    "prevent", "recipe", False, "mitigates while fine-tuning", "the mitigated training over the baseline's"
)
CURE = Scenario(
    "cure",
    "cure",
    True,
    "mends a fine-tuned model",
    "the baseline's training and the cure over the baseline's alone",
)
SCENARIOS = {scenario.name: scenario for scenario in (PREVENT, CURE)}
