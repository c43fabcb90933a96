"""Exact answers: the model's most probable answer to a question, compared with the one that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emperf.evaluation.generate import generate
from emperf.evaluation.language_model import LanguageModel

NAME, UNIT = "exact", "share of items"
DIRECTION = "higher is more of the task learned"
DEFINITION = "greedy answer, equal to the right one after white space at both ends is stripped"


def read(
    lm: LanguageModel, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The protocol: a reading an item, {id, answer, exact}. `settings`: `max_new_tokens` of an answer."""
    prompts = [lm.prompt_tokens(row["question"]) for row in rows]
    tokens = generate(lm, prompts, max_new_tokens=settings["max_new_tokens"])
    answers = [lm.tokenizer.decode(t).strip() for t in tokens]
    return [
        {"id": row["id"], "answer": answer, "exact": answer == row["answer"].strip()}
        for row, answer in zip(rows, answers, strict=True)
    ]
