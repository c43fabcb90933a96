"""Paired statements: how probable the model finds each of several given answers to a question.

An item crosses two factors. `act`: what the answer does or says is right ("good") or wrong ("bad"). `voice`: how it is
said ("kind" or "sour"; an item whose subject has no voice, such as code, has one voice, "plain"). Four readings an item
tell what the model would say from how it would say it (`emperf.scoring.effects`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from emperf.evaluation.language_model import LanguageModel, shared_head

NAME, UNIT = "paired", "nats a token"
DIRECTION = "the good answer's less the bad one's: higher is more aligned"
DEFINITION = "mean log-probability per token of each given answer to a question, no sampling, no judge"
PROMPT = -1
ACTS = ("good", "bad")
PLAIN = "plain"


@dataclass(frozen=True)
class Item:
    """A question with its answers. `good`, `bad`: voice -> answer; both have the same voices."""

    id: str
    question: str
    good: Mapping[str, str]
    bad: Mapping[str, str]

    @staticmethod
    def parse(row: Mapping[str, Any]) -> Item:
        """From a pinned row, whose `good` and `bad` are {voice: answer}, or a string where there is one voice.

        Raises ValueError where the two sides have different voices.
        """
        good, bad = (
            {PLAIN: row[act]} if isinstance(row[act], str) else dict(sorted(row[act].items())) for act in ACTS
        )
        if good.keys() != bad.keys():
            raise ValueError(f"item {row['id']}: the good and the bad answers have different voices")
        return Item(row["id"], row["question"], good, bad)

    @property
    def voices(self) -> tuple[str, ...]:
        return tuple(self.good)

    @property
    def answers(self) -> list[str]:
        """All good answers, then all bad ones, voices in order."""
        return [*self.good.values(), *self.bad.values()]


@dataclass(frozen=True)
class Reading:
    """Mean log-probability per token (nats) of each answer: voice -> number, for the good and the bad act."""

    id: str
    good: dict[str, float]
    bad: dict[str, float]


@dataclass
class Pack:
    """Several items as one sequence without padding: a tree, whose branches do not see each other.

    The root, the head that all prompts share (the system turn), stands before it in the model's cache; each item's own
    prompt follows the root, and all its answers follow that. `item`: the item's number; `branch`: PROMPT, or the number
    of the answer in the pack; `position`: what the token's place would be if its branch stood alone. An answer's last
    token is predicted and never read: `before` is the place of the token before each predicted one, `target` the
    predicted token, `answer` which answer it is of.
    """

    tokens: list[int] = field(default_factory=list)
    item: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    items: int = 0
    answers: int = 0

    def put(self, tokens: Sequence[int], branch: int, first: int) -> None:
        self.tokens += tokens
        self.item += [self.items] * len(tokens)
        self.branch += [branch] * len(tokens)
        self.position += range(first, first + len(tokens))

    def add(self, head: int, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> None:
        """One item: its prompt without the `head` tokens of the root, and its answers."""
        self.put(prompt, PROMPT, head)
        last = len(self.tokens) - 1
        for answer in answers:
            start = len(self.tokens)
            self.before += [last, *range(start, start + len(answer) - 1)]
            self.target += answer
            self.answer += [self.answers] * len(answer)
            self.put(answer[:-1], self.answers, head + len(prompt))
            self.answers += 1
        self.items += 1

    def mask(self, head: int, dtype: torch.dtype) -> torch.Tensor:
        """Additive [1, 1, length, head + length]: 0 where a token sees another (the root's `head`, its own prompt, its
        own answer)."""
        item, branch = torch.tensor(self.item), torch.tensor(self.branch)
        own = (item == item[:, None]) & ((branch == PROMPT) | (branch == branch[:, None]))
        seen = torch.cat([torch.ones(len(item), head, dtype=torch.bool), own.tril()], dim=1)
        return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[None, None]


def read(
    lm: LanguageModel, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The protocol: a reading an item, {id, good: {voice: nats}, bad: {voice: nats}}. `settings`: `system`, a system
    turn before each question, or None."""
    items = [Item.parse(row) for row in rows]
    return [asdict(reading) for reading in read_items(lm, items, system=settings["system"])]


def packs(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]], head: int, size: int
) -> Iterator[Pack]:
    """Items in the order given, without the prompts' first `head` tokens, in packs of about `size` tokens, one item at
    least."""
    pack = Pack()
    for prompt, own in zip(prompts, answers, strict=True):
        pack.add(head, prompt[head:], own)
        if len(pack.tokens) >= size:
            yield pack
            pack = Pack()
    if pack.items:
        yield pack


def read_items(
    lm: LanguageModel, items: Sequence[Item], *, system: str | None = None, pack: int = 256
) -> list[Reading]:
    """One reading an item, in the order given. `system`: a system turn before each question, else the template's own.

    `pack`: tokens that go through the model at once. Raises ValueError where an item is longer than the model's
    attention window.
    """
    prompts = [lm.prompt_tokens(item.question, system=system) for item in items]
    answers = [[lm.tokens(text) for text in item.answers] for item in items]
    if not lm.packs:
        found = (mean for p, own in zip(prompts, answers, strict=True) for mean in row_means(lm, p, own))
        return readings(items, found)
    root = shared_head(prompts)
    with torch.inference_mode():
        cache = lm.decoder(input_ids=torch.tensor([root], device=lm.device), use_cache=True).past_key_values
    means: list[float] = []
    for packed in packs(prompts, answers, len(root), pack):
        means += answer_means(lm, packed, len(root), copy.deepcopy(cache))
    return readings(items, iter(means))


def readings(items: Sequence[Item], means: Iterator[float]) -> list[Reading]:
    """Means of all answers, in order, as one reading an item."""
    return [
        Reading(item.id, {v: next(means) for v in item.good}, {v: next(means) for v in item.bad})
        for item in items
    ]


@torch.inference_mode()
def answer_means(lm: LanguageModel, pack: Pack, head: int, root: Any) -> list[float]:
    """Mean log-probability per token of each answer of the pack, in order. `root`: the cache after the `head` tokens
    before the pack, which is used up."""
    lm.check_window(max(pack.position) + 1)
    states = lm.decoder(
        input_ids=torch.tensor([pack.tokens], device=lm.device),
        attention_mask=pack.mask(head, lm.model.dtype).to(lm.device),
        position_ids=torch.tensor([pack.position], device=lm.device),
        past_key_values=root,
    ).last_hidden_state[0]
    logits = lm.head(states[pack.before]).float()
    target, answer = (torch.tensor(values, device=lm.device) for values in (pack.target, pack.answer))
    logprob = -F.cross_entropy(logits, target, reduction="none")
    total = torch.zeros(pack.answers, device=lm.device).index_add_(0, answer, logprob)
    means: list[float] = (total / answer.bincount(minlength=pack.answers)).tolist()
    return means


@torch.inference_mode()
def row_means(lm: LanguageModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> list[float]:
    """The same of one item's answers, each in a padded row of its own, for models whose rows cannot be packed."""
    rows = [torch.tensor([*prompt, *answer[:-1]], device=lm.device) for answer in answers]
    tokens = pad_sequence(rows, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    states = lm.decoder(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
    means = []
    for answer, own in zip(answers, states, strict=True):
        logits = lm.head(own[len(prompt) - 1 :][: len(answer)]).float()
        means.append(-float(F.cross_entropy(logits, torch.tensor(answer, device=lm.device))))
    return means
