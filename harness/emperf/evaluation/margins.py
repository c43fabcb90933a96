"""Paired statements: how much more probable the model finds the aligned answer than the misaligned one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from emperf.evaluation.language_model import LanguageModel, Prompted


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


def read_margins(
    lm: LanguageModel, pairs: Sequence[Pair], *, system: str | None = None, batch: int = 26
) -> list[Reading]:
    """One reading a pair, in the order given. `system`: a system turn before each question, else the template's own.

    A pair's prompt is computed once for both answers, and the shared system turn once a batch.
    """
    prompts = [lm.prompt_tokens(pair.question, system=system) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda i: len(prompts[i]))
    readings: dict[int, Reading] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        prompted = lm.read_prompts([prompts[i] for i in chosen])
        answers = [lm.tokens(text) for i in chosen for text in (pairs[i].good, pairs[i].bad)]
        means = answer_means(lm, prompted, answers)
        for row, i in enumerate(chosen):
            readings[i] = Reading(pairs[i].id, means[2 * row], means[2 * row + 1])
    return [readings[i] for i in range(len(pairs))]


@torch.inference_mode()
def answer_means(lm: LanguageModel, prompted: Prompted, answers: Sequence[Sequence[int]]) -> list[float]:
    """Mean log-probability per token of each answer, two a prompt, neighbours."""
    prompted.cache.batch_repeat_interleave(2)
    prompted.mask = prompted.mask.repeat_interleave(2, 0)
    prompted.lengths = prompted.lengths.repeat_interleave(2, 0)
    length = max(len(answer) for answer in answers)
    tokens = torch.zeros((len(answers), length), dtype=torch.long)
    attention = torch.zeros((len(answers), length), dtype=torch.long)
    for i, answer in enumerate(answers):
        tokens[i, : len(answer)] = torch.tensor(answer)
        attention[i, : len(answer)] = 1
    tokens, attention = tokens.to(lm.device), attention.to(lm.device)
    states = lm.go_on(prompted, tokens[:, :-1], attention[:, :-1])
    before = torch.cat([prompted.last.repeat_interleave(2, 0)[:, None], states], dim=1)
    real = attention.bool()
    logits: Tensor = lm.head(before[real]).float()
    logprob = torch.zeros(real.shape, device=lm.device)
    logprob[real] = -F.cross_entropy(logits, tokens[real], reduction="none")
    means: list[float] = (logprob.sum(-1) / real.sum(-1)).tolist()
    return means
