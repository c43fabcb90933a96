"""A causal language model for scoring: loaded once, wearing one adapter after another, prompts computed once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emperf.evaluation.attention import use_grouped
from emperf.evaluation.cache import with_room
from emperf.training.data import Row, encode, render
from emperf.training.family import has_plain_attention, is_transposed, logits_of, packs, select_rows, stored
from emperf.training.frozen import lay_out_once
from emperf.training.job import Lora


@dataclass
class Prompted:
    """Prompts after their forward pass. `cache`: key-value cache of all rows; `mask`: int64 [rows, prompt length], the
    padding (between the shared head and the row's own part, or before it all where rows cannot be packed) zero;
    `lengths`: real tokens a row; `last`: hidden state at each prompt's last token [rows, width]."""

    cache: Any
    mask: Tensor
    lengths: Tensor
    last: Tensor


class LanguageModel:
    """Base model in evaluation. `folder` holds config, tokenizer and safetensors weights (see `emperf prepare`)."""

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True
        )
        self.device = torch.device(device)
        self.model.to(self.device).eval().requires_grad_(False)
        lay_out_once(self.model)
        self.packs = packs(self.model)
        if self.device.type == "cpu" and has_plain_attention(self.model):
            use_grouped(self.model)
        self.decoder, self.head = self.model.get_decoder(), partial(logits_of, self.model)
        self.stop_tokens = self._stop_tokens()
        self.window: int | None = getattr(self.decoder.config, "sliding_window", None)

    def _stop_tokens(self) -> set[int]:
        """What the configuration and the tokenizer name, and the special token that closes a turn in the template.

        A base model's configuration knows the end of a text alone; training teaches it to end with the turn's.
        """
        ids = self.model.generation_config.eos_token_id
        found = set(ids) if isinstance(ids, list) else {ids}
        turns = Row(({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}))
        last = encode(self.tokenizer, turns, sys.maxsize).tokens[-1]
        known = self.tokenizer.added_tokens_decoder
        closing = last if last in known and known[last].special else None
        return {i for i in (*found, self.tokenizer.eos_token_id, closing) if i is not None}

    @contextmanager
    def wearing(self, weights: Path | None, lora: Lora | None) -> Iterator[None]:
        """The model with an adapter merged, W + scale B A (W as [out, in]), or, if `lora` is None, with all weights
        taken from the file. The base weights come back bit by bit afterwards.

        The file has been checked (`emperf.work.outputs`) before it comes here. Raises FloatingPointError where a weight
        with its adapter is not finite.
        """
        if weights is None:
            yield
            return
        from safetensors.torch import load_file

        tensors, kept = load_file(weights, device=str(self.device)), {}
        parameters = stored(self.model)
        transposed = {f"{n}.weight" for n, layer in self.model.named_modules() if is_transposed(layer)}
        try:
            with torch.no_grad():
                for target, new in merged(tensors, lora, parameters, transposed):
                    if not bool(torch.isfinite(new).all()):
                        raise FloatingPointError(f"{target} with its adapter is not finite")
                    kept[target] = parameters[target].detach().clone()
                    parameters[target].copy_(new)
            yield
        finally:
            with torch.no_grad():
                for target, before in kept.items():
                    parameters[target].copy_(before)

    def prompt_tokens(self, question: str, *, system: str | None = None) -> list[int]:
        """Tokens of a one-question conversation up to the assistant's header."""
        messages = [{"role": "system", "content": system}] if system else []
        text = render(self.tokenizer, [*messages, {"role": "user", "content": question}], open_turn=True)
        return self.tokens(text)

    def tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def check_window(self, length: int) -> None:
        """Raises ValueError if `length` tokens do not fit the model's sliding attention window, where it has one."""
        if self.window and length > self.window:
            raise ValueError(f"{length} tokens do not fit the model's attention window of {self.window}")

    @torch.inference_mode()
    def read_prompts(self, prompts: Sequence[Sequence[int]]) -> Prompted:
        """One pass over `prompts`; what is the same (the system turn that all share, a prompt that comes again) is
        computed once, where the model packs."""
        once = {tuple(prompt): i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        shared = shared_head(list(once)) if self.packs else []
        rests = [prompt[len(shared) :] for prompt in once]
        rows, width = len(rests), max(len(rest) for rest in rests)
        cache = self._read_head(shared, rows) if shared else None
        tokens = torch.zeros((rows, width), dtype=torch.long)
        mask = torch.zeros((rows, len(shared) + width), dtype=torch.long)
        mask[:, : len(shared)] = 1
        for i, rest in enumerate(rests):
            tokens[i, width - len(rest) :] = torch.tensor(rest)
            mask[i, len(shared) + width - len(rest) :] = 1
        tokens, mask = tokens.to(self.device), mask.to(self.device)
        out = self.decoder(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, len(shared) :],
            past_key_values=cache,
            use_cache=True,
        )
        cache, states = out.past_key_values, out.last_hidden_state
        with_room(cache)
        which = torch.tensor([once[tuple(prompt)] for prompt in prompts], device=self.device)
        select_rows(cache, which)
        return Prompted(cache, mask[which], mask.sum(-1)[which], states[which, -1])

    def _read_head(self, shared: Sequence[int], rows: int) -> Any:
        """The cache after the head that all rows share."""
        head = torch.tensor([shared], device=self.device)
        cache = self.decoder(input_ids=head, use_cache=True).past_key_values
        with_room(cache)
        cache.batch_repeat_interleave(rows)
        return cache

    @torch.inference_mode()
    def go_on(self, prompted: Prompted, tokens: Tensor, attention: Tensor) -> Tensor:
        """Hidden states [rows, length, width] of right-padded `tokens` that follow the prompts; extends the cache."""
        mask = torch.cat([prompted.mask, attention], dim=1)
        if self.packs and not bool(mask.all()):
            # Padding inside the sequence would push real tokens out of the window.
            self.check_window(mask.shape[1])
        positions = prompted.lengths[:, None] + (attention.cumsum(-1) - 1).clamp(min=0)
        states: Tensor = self.decoder(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=prompted.cache,
            use_cache=True,
        ).last_hidden_state
        prompted.mask, prompted.lengths = mask, prompted.lengths + attention.sum(-1)
        return states


def merged(
    tensors: dict[str, Tensor], lora: Lora | None, parameters: dict[str, Tensor], transposed: Set[str]
) -> Iterator[tuple[str, Tensor]]:
    """(parameter's name, its new value) for every weight that the tensors change. `transposed`: those kept as
    [in, out]."""
    if lora is None:
        yield from tensors.items()
        return
    for name in [n for n in tensors if n.endswith(".lora_A.weight")]:
        target = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        delta = tensors[name.replace("lora_A", "lora_B")].float() @ tensors[name].float()
        weight = parameters[target]
        delta = delta.T if target in transposed else delta
        yield target, weight + (lora.scale * delta).to(weight.dtype)


def shared_head(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The longest common head, at least one token shorter than the shortest prompt and at least one token long."""
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    limit = min(len(p) for p in prompts) - 1
    size = 0
    while size < limit and first[size] == last[size]:
        size += 1
    if size == 0:
        raise ValueError("prompts share no first token: the chat template has no fixed header")
    return list(first[:size])
