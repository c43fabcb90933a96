"""A judge on this machine: the probabilities of its first token, many answers at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from emperf.evaluation.judges.prompts import Asked
from emperf.evaluation.judges.replies import Reply
from emperf.evaluation.language_model import LanguageModel

BATCH = 16


class Local:
    """`lm`: the judge. `top`: alternatives of the first token that a reply holds."""

    def __init__(self, lm: LanguageModel, top: int, batch: int = BATCH) -> None:
        self.lm, self.top, self.batch = lm, top, batch

    def ask(self, prompts: Sequence[Asked]) -> Iterator[list[tuple[Asked, Reply]]]:
        """Replies by batches of like length, not in the order of the prompts. What all prompts of a batch begin with is
        computed once."""
        tokens = {asked.key: self._tokens(asked) for asked in prompts}
        by_length = sorted(prompts, key=lambda asked: (asked.aspect, len(tokens[asked.key])))
        for group in self._groups(by_length, tokens):
            firsts = self._first([tokens[asked.key] for asked in group])
            yield [(asked, Reply(first)) for asked, first in zip(group, firsts, strict=True)]

    def close(self) -> None:
        """Nothing is held open."""

    def _tokens(self, asked: Asked) -> list[int]:
        text = self.lm.tokenizer.apply_chat_template(
            [{"role": "user", "content": asked.text}],
            tokenize=False, add_generation_prompt=True, enable_thinking=False,
        )  # fmt: skip
        return self.lm.tokens(str(text))

    def _groups(self, prompts: Sequence[Asked], tokens: dict[str, list[int]]) -> Iterator[list[Asked]]:
        def alike(asked: Asked) -> tuple[str, int]:
            # Padding would push real tokens out of an attention window: those are read in equal lengths.
            length = len(tokens[asked.key])
            return asked.aspect, length if self.lm.window and length > self.lm.window else 0

        for _, alike_ones in groupby(prompts, alike):
            group = list(alike_ones)
            for start in range(0, len(group), self.batch):
                yield group[start : start + self.batch]

    @torch.inference_mode()
    def _first(self, prompts: Sequence[Sequence[int]]) -> list[dict[str, float] | None]:
        prompted = self.lm.read_prompts(prompts)
        probabilities = self.lm.head(prompted.last).float().softmax(-1)
        values, tokens = probabilities.topk(min(self.top, probabilities.shape[-1]))
        found: list[dict[str, float] | None] = []
        for row_values, row_tokens in zip(values.tolist(), tokens.tolist(), strict=True):
            first: dict[str, float] = {}
            for value, token in zip(row_values, row_tokens, strict=True):
                text = self.lm.tokenizer.decode([token])
                first[text] = first.get(text, 0.0) + value
            found.append(first)
        return found
