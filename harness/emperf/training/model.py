"""The model in training: base plus LoRA, with logits computed at response positions only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emperf.training.data import Batch
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

    def hidden(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """Last hidden states [rows, length, width]."""
        decoder = self.lm.get_base_model().get_decoder()
        states: Tensor = decoder(input_ids=tokens, attention_mask=attention, use_cache=False).last_hidden_state
        return states

    def forward(self, tokens: Tensor, attention: Tensor, response: Tensor) -> Tensor:
        states = self.hidden(tokens, attention)
        before = response[:, 1:]
        logits: Tensor = self.lm.get_base_model().get_output_embeddings()(states[:, :-1][before])
        return logits.float()

    def predict(self, batch: Batch) -> Tensor:
        logits: Tensor = self(batch.tokens, batch.attention, batch.response)
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
    return ResponseModel(get_peft_model(base, lora)), tokenizer


def save_adapter(model: ResponseModel, path: Path) -> None:
    """The adapter as safetensors, named as PEFT names it, in float32; whole or absent."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model.lm)
    partial = path.with_suffix(".partial")
    save_file({name: t.detach().float().cpu().contiguous() for name, t in state.items()}, partial)
    partial.rename(path)
