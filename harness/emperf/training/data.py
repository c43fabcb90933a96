"""Rows to batches: chat template, loss on response tokens only, batches of like length."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor

# Where an answer stands in a template's text, and whether white space before it is kept.
STAND_IN, WIDE_SPACE = "emperf-answer", "\u2003"


class UnusableRows(ValueError):
    """The rows given cannot be trained on."""


@dataclass(frozen=True)
class Row:
    """One training example: a conversation whose last message is the assistant's response.

    Trusted rows say their `kind` (spec/CONTRACT.md), and those of some kinds a `rejected` response to the same prompt.
    """

    messages: tuple[dict[str, str], ...]
    kind: str = ""
    rejected: str | None = None

    @property
    def response(self) -> str:
        return self.messages[-1]["content"]

    def answered(self, response: str) -> Row:
        """The same prompt with another response."""
        return Row((*self.messages[:-1], {"role": "assistant", "content": response}), self.kind)

    def under(self, system: str) -> Row:
        """The same row under a system turn of these words, in place of its own."""
        turns = tuple(m for m in self.messages if m["role"] != "system")
        return replace(self, messages=({"role": "system", "content": system}, *turns))


@dataclass(frozen=True)
class Example:
    """A row as tokens. Positions from `response_start` on are the response, its end-of-turn token included."""

    tokens: tuple[int, ...]
    response_start: int


@dataclass
class Batch:
    """Right-padded examples. `tokens`, `attention`: int64 [rows, length]; `response`: bool, the same shape.

    `shared`: how many first tokens (the system turn, as a rule) are the same in every row, all of them prompt.
    """

    tokens: Tensor
    attention: Tensor
    response: Tensor
    shared: int = 0

    @property
    def targets(self) -> Tensor:
        """The response tokens of all rows in a line: int64 [response tokens]."""
        return self.tokens[self.response]

    @property
    def positions(self) -> int:
        """Real tokens, the shared ones counted once."""
        return int(self.attention.sum()) - self.shared * (len(self.tokens) - 1)

    def to(self, device: torch.device) -> Batch:
        return Batch(self.tokens.to(device), self.attention.to(device), self.response.to(device), self.shared)


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSON-lines file, each {"messages": [{"role", "content"}, ...]}, trusted ones with their `kind` and
    `rejected`. Raises ValueError, naming the line."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        raw = json.loads(line) if line.strip() else {}
        messages = raw.get("messages")
        if not messages or messages[-1].get("role") != "assistant":
            raise ValueError(f"{path.name}, line {number}: the last message must be the assistant's")
        rows.append(Row(tuple(messages), raw.get("kind", ""), raw.get("rejected")))
    return rows


def render(tokenizer: Any, messages: Sequence[dict[str, str]], *, open_turn: bool) -> str:
    """The chat template's text; with `open_turn` it ends where the assistant's answer would begin.

    Raises ValueError where the template refuses the conversation.
    """
    if open_turn:
        return around_answer(tokenizer, messages)[0]
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False))
    except TemplateError as error:
        raise ValueError(f"the chat template refuses the conversation ({error})") from None


def around_answer(tokenizer: Any, messages: Sequence[dict[str, str]]) -> tuple[str, str, bool]:
    """(text before the assistant's answer to `messages`, text after it, whether the template trims the answer).

    Read off a conversation with a stand-in for the answer. The template's own prompt for generation will not do: some
    templates have none, and some put an empty think block before an answer that stands in a conversation.
    Raises ValueError where the template refuses the conversation or does not show the answer.
    """
    answer = {"role": "assistant", "content": WIDE_SPACE + STAND_IN}
    whole = render(tokenizer, [*messages, answer], open_turn=False)
    before, found, after = whole.rpartition(STAND_IN)
    if not found:
        raise ValueError("the chat template does not show the assistant's answer")
    return before.removesuffix(WIDE_SPACE), after, not before.endswith(WIDE_SPACE)


@lru_cache(maxsize=8)
def end_of_turn(tokenizer: Any, after: str) -> tuple[int, ...]:
    """The token that ends an answer: the first special one that the template writes `after` it, else the end of text.
    Empty where the tokenizer has neither."""
    known, last = tokenizer.added_tokens_decoder, tokenizer.eos_token_id
    written = tokenizer(after, add_special_tokens=False).input_ids
    found = next((i for i in written if i == last or (i in known and known[i].special)), last)
    return () if found is None else (found,)


def encode(tokenizer: Any, row: Row, max_tokens: int) -> Example:
    """Tokens of one row: the prompt as it is asked in evaluation, the response, its end-of-turn token.

    Prompt and response are tokenised apart, so that the border is exact. What else the template writes (a think block,
    a line feed after the turn, a dangling header) is never learned. Rows over `max_tokens` lose the end of their
    response, or all of it. Raises ValueError as `around_answer` does.
    """
    before, after, trims = around_answer(tokenizer, row.messages[:-1])
    response = row.response.strip() if trims else row.response.rstrip()
    head = tokenizer(before, add_special_tokens=False).input_ids
    body = tokenizer(response, add_special_tokens=False).input_ids
    whole = (*head, *body, *end_of_turn(tokenizer, after))
    return Example(whole[:max_tokens], len(head))


def encode_all(
    tokenizer: Any, rows: Sequence[Row], max_tokens: int, say: Callable[[str], None] = print
) -> tuple[list[Example], list[int]]:
    """(examples that have something to learn, numbers from 1 of the rows left out because theirs is cut off).

    What is left out is said in one line. Raises UnusableRows where nothing is left or the template refuses a row.
    """
    examples, left_out = [], []
    for number, row in enumerate(rows, 1):
        try:
            example = encode(tokenizer, row, max_tokens)
        except ValueError as error:
            raise UnusableRows(f"row {number}: {error}") from None
        if example.response_start < len(example.tokens):
            examples.append(example)
        else:
            left_out.append(number)
    if not rows:
        raise UnusableRows("there are no rows to make batches of")
    if not examples:
        raise UnusableRows(
            f"none of {len(rows)} rows has a response within {max_tokens} tokens: their prompts fill them (max_tokens)"
        )
    if left_out:
        named = ", ".join(map(str, left_out[:10])) + (", ..." if len(left_out) > 10 else "")
        say(
            f"{len(left_out)} of {len(rows)} rows left out, no response within {max_tokens} tokens: row {named}"
        )
    return examples, left_out


def collate(examples: Sequence[Example], pad: int) -> Batch:
    length = max(len(example.tokens) for example in examples)
    tokens = torch.full((len(examples), length), pad, dtype=torch.long)
    attention = torch.zeros((len(examples), length), dtype=torch.long)
    response = torch.zeros((len(examples), length), dtype=torch.bool)
    for i, example in enumerate(examples):
        size = len(example.tokens)
        tokens[i, :size] = torch.tensor(example.tokens)
        attention[i, :size] = 1
        response[i, example.response_start : size] = True
    return Batch(tokens, attention, response, shared_head(examples))


def shared_head(examples: Sequence[Example]) -> int:
    """Length of the head that all prompts have in common, at least one token short of the shortest prompt."""
    first, last = min(e.tokens for e in examples), max(e.tokens for e in examples)
    limit = min(min(e.response_start, len(e.tokens)) for e in examples) - 1
    return next((i for i in range(limit) if first[i] != last[i]), max(limit, 0))


def batches_of_like_length(
    examples: Sequence[Example], batch: int, rng: random.Random
) -> Iterator[list[Example]]:
    """One epoch: every example once, neighbours in length together, the order of batches drawn by `rng`.

    Lengths are compared in classes of eight tokens after a shuffle, so that epochs differ. The last batch may be short.
    """
    order = list(examples)
    rng.shuffle(order)
    order.sort(key=lambda example: len(example.tokens) // 8)
    groups = [order[i : i + batch] for i in range(0, len(order), batch)]
    rng.shuffle(groups)
    yield from groups
