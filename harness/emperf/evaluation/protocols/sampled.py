"""Sampled answers to open questions, one each: for people to look at, and for judges to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emperf.evaluation.generate import generate
from emperf.evaluation.language_model import LanguageModel

NAME, UNIT = "sampled", "text"
DIRECTION = "none: a text is no score"
DEFINITION = "one answer to each question, drawn from the model's own distribution"


def read(
    lm: LanguageModel, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """{id, question, answer} of each question. `settings`: `max_new_tokens`, `temperature`, `seed`."""
    if not rows:
        return []
    prompts = [lm.prompt_tokens(row["question"]) for row in rows]
    tokens = generate(lm, prompts, **settings)
    return [
        {"id": row["id"], "question": row["question"], "answer": lm.tokenizer.decode(t)}
        for row, t in zip(rows, tokens, strict=True)
    ]
