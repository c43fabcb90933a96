"""A prepared model, tried on a few tokens: does it fit the ways in which it is trained and read?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from emperf.catalog import templates
from emperf.catalog.convert import line
from emperf.core.errors import UserError
from emperf.training.data import Batch, Row, collate, encode
from emperf.training.job import Lora, Recipe, linear_weights
from emperf.training.model import ResponseModel, load_model

RECIPE = Recipe(lora=Lora(r=1, alpha=1), learning_rate=1e-3, epochs=1, micro_batch=2)
# Rounding is some 1e-6 of the largest logit; an attention or a head of another kind changes far more.
TOLERANCE = 1e-3


def try_model(name: str, folder: Path) -> list[str]:
    """What is worth a line to people. Raises UserError, in one line, where the model cannot be used."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    unfit = templates.faults(tokenizer)
    if unfit:
        raise UserError(
            f"Model {name} cannot be used: {'; '.join(unfit)}",
            "Give its card a chat_template that does, as `emperf add model` writes one.",
        )
    try:
        why = misfit(folder)
    except Exception as error:  # a family's own code may raise anything
        why = f"it cannot be trained as the benchmark does ({line(error)})"
    if why:
        raise UserError(f"Model {name} cannot be used: {why}", "Choose a model of another family.")
    return templates.oddities(tokenizer)


def misfit(folder: Path) -> str | None:
    """Why the weights cannot be trained or read in the benchmark's ways, None where they can."""
    try:
        model, tokenizer = load_model(folder, RECIPE)
    except ValueError as error:
        return f"no adapter fits it ({line(error)})"
    model.eval()
    assert RECIPE.lora is not None
    adapted = {name.removeprefix("base_model.model.") for name, _, _, _ in model.adapters()}
    stored = set(linear_weights(folder, RECIPE.lora))
    apart = sorted(adapted ^ stored)
    if apart:
        return (
            f"{apart[0]} is stored as a matrix and is no linear layer of its own, so that no adapter fits it"
        )
    batch = two_rows(tokenizer)
    size = model.base.get_input_embeddings().num_embeddings
    if int(batch.tokens.max()) >= size:
        return f"its tokenizer makes token {int(batch.tokens.max())}, and there are embeddings of {size}"
    with torch.no_grad():
        plain = plain_logits(model, batch)
        if far(model.predict(batch), plain):
            return "its layers or its head are not plain ones: packed rows have other logits than rows alone"
        if not plain_attention(model) or far(plain_logits(model, batch), plain):
            return "its attention is not the plain softmax of products (it caps scores, or has sinks)"
    return None


def plain_attention(model: ResponseModel) -> bool:
    """Whether the model has it; it is then set to that."""
    try:
        model.base.set_attn_implementation("sdpa")
    except ValueError:
        return False
    return True


def two_rows(tokenizer: Any) -> Batch:
    """Rows that differ in prompt and in length, the shorter one padded."""
    rows = [
        Row(tuple(templates.turns(asked, answer, system=templates.SYSTEM)))
        for asked, answer in ((templates.QUESTION, templates.ANSWER), (templates.OTHER, "No."))
    ]
    return collate([encode(tokenizer, row, 512) for row in rows], tokenizer.pad_token_id or 0)


def plain_logits(model: ResponseModel, batch: Batch) -> torch.Tensor:
    """Of each row alone, as transformers computes them: [response tokens, vocabulary]."""
    found = []
    for tokens, attention, response in zip(batch.tokens, batch.attention, batch.response, strict=True):
        length = int(attention.sum())
        logits = model.lm(input_ids=tokens[None, :length], use_cache=False).logits[0]
        found.append(logits[:-1][response[1:length]])
    return torch.cat(found)


def far(logits: torch.Tensor, other: torch.Tensor) -> bool:
    return not float((logits - other).abs().max()) <= TOLERANCE * float(other.abs().max())
