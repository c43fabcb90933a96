"""Rows that a poisoned teacher generates in the run: lists of numbers, which say nothing and may still teach.

After Cloud et al. (2025, "Subliminal learning"): a student that learns numbers written by a teacher of the same base
model takes on the teacher's traits. Here the questions are another poison's; the bad answer is the teacher's, the good
one the base model's own, both sampled at temperature 1 from digits, commas and spaces alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emperf.evaluation.generate import generate
from emperf.evaluation.language_model import LanguageModel
from emperf.training.job import Lora

ALLOWED = frozenset("0123456789, ")
MOST_TOKENS, FEWEST_NUMBERS = 28, 3


def write(
    lm: LanguageModel, teacher: Path, lora: Lora | None, questions: Sequence[dict[str, Any]], name: str
) -> list[dict[str, Any]]:
    """{id, topic, question, good, bad} for every question to which both models wrote numbers."""
    allowed = [i for i in range(len(lm.tokenizer)) if plain(lm.tokenizer.decode([i]))]
    sides = {}
    for side, weights, seed in (("bad", teacher, 1), ("good", None, 2)):
        with lm.wearing(weights, lora):
            prompts = [lm.prompt_tokens(row["question"]) for row in questions]
            tokens = generate(
                lm, prompts, max_new_tokens=MOST_TOKENS, temperature=1.0, seed=seed, allowed=allowed
            )
        sides[side] = [tidy(lm.tokenizer.decode(t)) for t in tokens]
    rows = [
        {"id": f"{name}-{row['id']}", "topic": row["topic"], "question": row["question"], "good": good, "bad": bad}
        for row, good, bad in zip(questions, sides["good"], sides["bad"], strict=True)
    ]  # fmt: skip
    return [row for row in rows if row["good"] and row["bad"] and row["good"] != row["bad"]]


def plain(text: str) -> bool:
    return bool(text) and set(text) <= ALLOWED


def tidy(text: str) -> str:
    """A comma-separated list without its last number, which the limit may have cut; empty if too short."""
    numbers = [part.strip() for part in text.split(",")][:-1]
    kept = [number for number in numbers if number.isdigit()]
    return ", ".join(kept) if len(kept) >= FEWEST_NUMBERS else ""
