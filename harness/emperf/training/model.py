"""The model in training: base plus LoRA, with logits computed at response positions only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emperf.training.data import Batch
from emperf.training.frozen import lay_out_once
from emperf.training.job import Recipe

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ResponseModel(nn.Module):
    """A causal language model that predicts response tokens and computes no other logits.

    `forward` takes a batch's tensors and gives float32 logits [response tokens, vocabulary], in the order of
    `Batch.targets`. The head is the largest matrix of a small model: leaving out prompt and padding saves a fifth of
    the time and most of the activation memory.
    """

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm = lm

    def hidden(self, tokens: Tensor, attention: Tensor, shared: int = 0) -> Tensor:
        """Last hidden states [rows, length - shared, width].

        The first `shared` positions are the same in all rows, and a causal model gives them the same activations: they
        go through it once, with gradient, and every row attends to that one copy.
        """
        decoder = self.lm.get_base_model().get_decoder()
        if len(tokens) == 1 or shared == 0:
            states: Tensor = decoder(input_ids=tokens, attention_mask=attention, use_cache=False)[0]
            return states[:, shared:]
        cache = decoder(input_ids=tokens[:1, :shared], use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(tokens))
        positions = torch.arange(shared, tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        rest: Tensor = decoder(
            input_ids=tokens[:, shared:],
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )[0]
        return rest

    def forward(self, tokens: Tensor, attention: Tensor, response: Tensor, shared: int = 0) -> Tensor:
        states = self.hidden(tokens, attention, shared)
        before = response[:, shared + 1 :]
        logits: Tensor = self.lm.get_base_model().get_output_embeddings()(states[:, :-1][before])
        return logits.float()

    def predict(self, batch: Batch) -> Tensor:
        """Logits of a batch, outside the engine's bookkeeping."""
        logits: Tensor = self(batch.tokens, batch.attention, batch.response, batch.shared)
        return logits

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """The base model's own behaviour: the same weights with the adapter off, so no second copy is held."""
        with self.lm.disable_adapter():
            yield

    def trainable(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if p.requires_grad]


def load_model(folder: Path, recipe: Recipe) -> tuple[ResponseModel, Any]:
    """(model with a fresh adapter on all linear layers, tokenizer), from a folder with safetensors weights only."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    base = AutoModelForCausalLM.from_pretrained(
        folder, dtype=DTYPES[recipe.dtype], local_files_only=True, use_safetensors=True
    )
    lora = LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        use_rslora=recipe.lora.rank_stabilised,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    tuned = get_peft_model(base, lora)
    lay_out_once(tuned)
    return ResponseModel(tuned), tokenizer


def save_adapter(model: ResponseModel, path: Path) -> None:
    """The adapter as safetensors, named as PEFT names it, in float32; whole or absent."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model.lm)
    partial = path.with_suffix(".partial")
    save_file({name: t.detach().float().cpu().contiguous() for name, t in state.items()}, partial)
    partial.rename(path)
