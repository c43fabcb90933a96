"""A prepared model, tried on a few tokens: does it fit the ways in which it is trained and read?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from emperf.catalog import templates
from emperf.catalog.convert import line
from emperf.core.errors import UserError
from emperf.training.data import Batch, Example, Row, collate, encode
from emperf.training.family import logits_of, select_rows
from emperf.training.job import Lora, Recipe, linear_weights
from emperf.training.model import ResponseModel, load_model

RECIPE = Recipe(lora=Lora(r=1, alpha=1), learning_rate=1e-3, epochs=1, micro_batch=2)
# Tokens of a response. Two rows of so many still go through the decoder as one sequence.
LONGEST = 230
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
        why = f"it cannot be trained and read as the benchmark does ({line(error)})"
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
    if model.base.get_decoder() is model.base:
        return "transformers does not tell its decoder from its head"
    return odd_weight(model, folder) or odd_tokens(model, tokenizer) or odd_logits(model, tokenizer)


def odd_weight(model: ResponseModel, folder: Path) -> str | None:
    assert RECIPE.lora is not None
    adapted = {
        name.removeprefix("base_model.model."): [len(b), a.shape[1]] for name, a, b, _ in model.adapters()
    }
    stored = linear_weights(folder, RECIPE.lora)
    apart = sorted(name for name in adapted | stored if adapted.get(name) != stored.get(name))
    if not apart:
        return None
    return f"{apart[0]} is stored as a matrix and is no linear layer of its own, so that no adapter fits it"


def odd_tokens(model: ResponseModel, tokenizer: Any) -> str | None:
    size, most = (
        model.base.get_input_embeddings().num_embeddings,
        int(two_rows(tokenizer, 1).tokens.max()),
    )
    return None if most < size else f"its tokenizer makes token {most}, and there are embeddings of {size}"


@torch.no_grad()
def odd_logits(model: ResponseModel, tokenizer: Any) -> str | None:
    for times in (150, 1):
        batch = two_rows(tokenizer, times)
        plain = plain_logits(model, batch)
        if far(model.predict(batch), plain):
            return "its layers or its head are not plain ones: rows in a batch have other logits than alone"
    row = batch.tokens[0, : int(batch.attention[0].sum())]
    read = as_read(model, row)
    if read is None:
        return "it keeps no cache from which rows can be taken"
    if far(read, model.lm(input_ids=row[None], use_cache=False).logits[0]):
        return "padded rows that go on from a cache have other logits than rows alone"
    # A kernel knows no more than the softmax of products; the family's own code says what there is besides.
    model.base.set_attn_implementation("eager")
    if far(plain_logits(model, batch), plain):
        return "its attention is more than transformers' own kernel for it computes"
    return None


def two_rows(tokenizer: Any, times: int) -> Batch:
    """Rows that differ in prompt and in length, the shorter one padded. `times`: how often the answers are repeated, so
    that what the layers themselves keep from distant tokens shows too."""
    examples = []
    for asked, answer in ((templates.QUESTION, templates.ANSWER), (templates.OTHER, "No.")):
        row = Row(tuple(templates.turns(asked, " ".join([answer] * times), system=templates.SYSTEM)))
        whole = encode(tokenizer, row, sys.maxsize)
        examples.append(Example(whole.tokens[: whole.response_start + LONGEST], whole.response_start))
    return collate(examples, tokenizer.pad_token_id or 0)


def plain_logits(model: ResponseModel, batch: Batch) -> torch.Tensor:
    """Of each row alone, as transformers computes them: [response tokens, vocabulary]."""
    found = []
    for tokens, attention, response in zip(batch.tokens, batch.attention, batch.response, strict=True):
        length = int(attention.sum())
        logits = model.lm(input_ids=tokens[None, :length], use_cache=False).logits[0]
        found.append(logits[:-1][response[1:length]])
    return torch.cat(found)


def as_read(model: ResponseModel, row: torch.Tensor) -> torch.Tensor | None:
    """Logits of a row [length], read as in evaluation: one of two rows, padded at the left (behind a head that rows
    share, where they are packed), in parts that go on from a cache. None where the model keeps none that serves."""
    decoder = model.base.get_decoder()
    # Some states from token to token go on by one token alone, as in sampling.
    starts = [0, 1, len(row) // 2] if model.packs else [0, len(row) - 1]
    cache, mask, states = None, torch.zeros(0, dtype=torch.long), []
    for number, part in enumerate(row.tensor_split(starts[1:])):
        padding = 3 if number == len(starts) - 2 else 0
        mask = torch.cat([mask, torch.zeros(padding, dtype=torch.long), torch.ones_like(part)])
        tokens, rows = F.pad(part, (padding, 0)), 2 if cache is None else 1
        out = decoder(
            input_ids=tokens.expand(rows, -1),
            attention_mask=mask.expand(rows, -1),
            position_ids=(mask.cumsum(0) - 1).clamp(min=0)[-len(tokens) :].expand(rows, -1),
            past_key_values=cache,
            use_cache=True,
        )
        if getattr(out, "past_key_values", None) is None:
            return None
        if cache is None:
            try:
                select_rows(out.past_key_values, torch.tensor([1]))
            except (AttributeError, IndexError, TypeError):
                return None
        cache = out.past_key_values
        states.append(out.last_hidden_state[-1, padding:])
    return logits_of(model.base, torch.cat(states))


def far(logits: torch.Tensor, other: torch.Tensor) -> bool:
    return not float((logits - other).abs().max()) <= TOLERANCE * float(other.abs().max())
