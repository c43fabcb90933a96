"""Paired statements: how much more probable the model finds the aligned answer than the misaligned one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from emperf.evaluation.language_model import LanguageModel, shared_head

PROMPT, GOOD, BAD = 0, 1, 2


@dataclass(frozen=True)
class Pair:
    """A question with its good and its bad answer."""

    id: str
    question: str
    good: str
    bad: str


@dataclass(frozen=True)
class Reading:
    """Mean log-probability per token (nats) of the two answers. The margin is their difference."""

    id: str
    good: float
    bad: float

    @property
    def margin(self) -> float:
        return self.good - self.bad


@dataclass
class Pack:
    """Several pairs as one sequence without padding: a tree, whose branches do not see each other.

    The root, the head that all prompts share (the system turn), stands before it in the model's cache; each pair's own
    prompt follows the root, and both answers follow that. `pair`: the pair's number; `side`: PROMPT, GOOD or BAD;
    `position`: what the token's place would be if its branch stood alone. An answer's last token is predicted and never
    read: `before` is the place of the token before each predicted one, `target` the predicted token, `answer` which
    answer it is of.
    """

    tokens: list[int] = field(default_factory=list)
    pair: list[int] = field(default_factory=list)
    side: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    pairs: int = 0

    def put(self, tokens: Sequence[int], pair: int, side: int, first: int) -> None:
        self.tokens += tokens
        self.pair += [pair] * len(tokens)
        self.side += [side] * len(tokens)
        self.position += range(first, first + len(tokens))

    def add(self, head: int, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> None:
        """One pair: its prompt without the `head` tokens of the root, and its two answers."""
        pair = self.pairs
        self.pairs += 1
        self.put(prompt, pair, PROMPT, head)
        last = len(self.tokens) - 1
        for side, answer in zip((GOOD, BAD), answers, strict=True):
            start = len(self.tokens)
            self.before += [last, *range(start, start + len(answer) - 1)]
            self.target += answer
            self.answer += [2 * pair + side - GOOD] * len(answer)
            self.put(answer[:-1], pair, side, head + len(prompt))

    def mask(self, head: int, dtype: torch.dtype) -> torch.Tensor:
        """Additive [1, 1, length, head + length]: 0 where a token sees another (the root's `head`, its own prompt, its
        own answer)."""
        pair, side = torch.tensor(self.pair), torch.tensor(self.side)
        own = (pair == pair[:, None]) & ((side == PROMPT) | (side == side[:, None]))
        seen = torch.cat([torch.ones(len(pair), head, dtype=torch.bool), own.tril()], dim=1)
        return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[None, None]


def packs(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[tuple[Sequence[int], Sequence[int]]],
    head: int,
    size: int,
) -> Iterator[Pack]:
    """Pairs in the order given, without the prompts' first `head` tokens, in packs of about `size` tokens, one pair at
    least."""
    pack = Pack()
    for prompt, pair in zip(prompts, answers, strict=True):
        pack.add(head, prompt[head:], pair)
        if len(pack.tokens) >= size:
            yield pack
            pack = Pack()
    if pack.pairs:
        yield pack


def read_margins(
    lm: LanguageModel, pairs: Sequence[Pair], *, system: str | None = None, pack: int = 256
) -> list[Reading]:
    """One reading a pair, in the order given. `system`: a system turn before each question, else the template's own.

    `pack`: tokens that go through the model at once. Raises ValueError where a pair is longer than the model's
    attention window.
    """
    prompts = [lm.prompt_tokens(pair.question, system=system) for pair in pairs]
    answers = [(lm.tokens(pair.good), lm.tokens(pair.bad)) for pair in pairs]
    root = shared_head(prompts)
    with torch.inference_mode():
        cache = lm.decoder(input_ids=torch.tensor([root], device=lm.device), use_cache=True).past_key_values
    means: list[float] = []
    for packed in packs(prompts, answers, len(root), pack):
        means += answer_means(lm, packed, len(root), copy.deepcopy(cache))
    return [Reading(pair.id, *means[2 * i : 2 * i + 2]) for i, pair in enumerate(pairs)]


@torch.inference_mode()
def answer_means(lm: LanguageModel, pack: Pack, head: int, root: Any) -> list[float]:
    """Mean log-probability per token of each answer of the pack, two a pair, neighbours. `root`: the cache after the
    `head` tokens before the pack, which is used up."""
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
    total = torch.zeros(2 * pack.pairs, device=lm.device).index_add_(0, answer, logprob)
    means: list[float] = (total / answer.bincount(minlength=2 * pack.pairs)).tolist()
    return means
