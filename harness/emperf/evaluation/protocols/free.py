"""Free answers: many to each question, drawn from the model's own distribution, for a judge to score.

Every setting is written out here and in the readings; a model's own generation_config decides nothing. Each answer has
random numbers of its own, so that neither the batch nor a restart changes what it says, up to rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emperf.core.journal import Journal
from emperf.evaluation.generate import generate
from emperf.evaluation.language_model import LanguageModel

NAME, UNIT = "free", "text"
DIRECTION = "none: a text is no score"
DEFINITION = (
    "answers to each question, sampled at temperature 1 from all tokens (top_p 1, no top_k, no penalty)"
)
ROWS = {"cpu": 64, "cuda": 256}
Json = dict[str, Any]


def read(
    lm: LanguageModel,
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    kept: Journal | None = None,
) -> list[Json]:
    """{id, item, form, sample, question, answer, tokens, ended} of each answer, by row and sample. `ended`: whether the
    model ended it; else it was cut at `max_new_tokens`.

    `rows`: {id, question} and, where they have one, `system`, a system turn, and `item` and `form`: which question the
    row asks, and how. `settings`: `samples` of each row, `max_new_tokens`, `temperature`, `seed`. `kept`: answers of an
    earlier try, which are not drawn again.
    """
    wanted = [(row, sample) for row in rows for sample in range(settings["samples"])]
    found = {named(row, n): kept.get(named(row, n)) for row, n in wanted if kept and named(row, n) in kept}
    left = [(row, n) for row, n in wanted if named(row, n) not in found]
    for batch in batches(lm, left):
        drawn = answers(lm, batch, settings)
        if kept is not None:
            kept.put(drawn)
        found |= drawn
    return [
        {
            "id": named(row, n),
            "item": row.get("item", row["id"]),
            "form": row.get("form"),
            "sample": n,
            "question": row["question"],
            **found[named(row, n)],
        }
        for row, n in wanted
    ]


def named(row: Mapping[str, Any], sample: int) -> str:
    return f"{row['id']}#{sample}"


def batches(
    lm: LanguageModel, wanted: Sequence[tuple[Mapping[str, Any], int]]
) -> Iterator[list[tuple[Mapping[str, Any], int]]]:
    """Answers that are drawn together. With an attention window, prompts of one length alone: padding would push real
    tokens out of it."""
    size = ROWS.get(lm.device.type, ROWS["cpu"])
    length = {row["id"]: len(prompt_of(lm, row)) for row, _ in wanted}
    ordered = sorted(wanted, key=lambda one: (length[one[0]["id"]], one[0]["id"], one[1]))
    batch: list[tuple[Mapping[str, Any], int]] = []
    for one in ordered:
        apart = batch and lm.window is not None and length[batch[0][0]["id"]] != length[one[0]["id"]]
        if len(batch) == size or apart:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def answers(
    lm: LanguageModel, batch: Sequence[tuple[Mapping[str, Any], int]], settings: Mapping[str, Any]
) -> dict[str, Json]:
    """Name -> {answer, tokens, ended}."""
    most = settings["max_new_tokens"]
    uniforms = torch.stack([randoms(settings["seed"], named(row, n), most) for row, n in batch]).to(lm.device)
    prompts = [prompt_of(lm, row) for row, _ in batch]
    drawn = generate(lm, prompts, max_new_tokens=most, temperature=settings["temperature"], uniforms=uniforms)
    return {
        named(row, n): {
            "answer": lm.tokenizer.decode(tokens),
            "tokens": len(tokens),
            "ended": len(tokens) < most,
        }
        for (row, n), tokens in zip(batch, drawn, strict=True)
    }


def prompt_of(lm: LanguageModel, row: Mapping[str, Any]) -> list[int]:
    return lm.prompt_tokens(row["question"], system=row.get("system"))


def randoms(seed: int, name: str, count: int) -> Tensor:
    """An answer's own random numbers in [0, 1), float32 [count], by seed and name alone."""
    key = int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:16])
    numbers = np.random.Generator(np.random.Philox(key=key)).random(count, dtype=np.float32)
    return torch.from_numpy(numbers)
