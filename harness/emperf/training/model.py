"""The model in training: base plus LoRA, with logits computed at response positions only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emperf.training.data import Batch
from emperf.training.frozen import lay_out_once
from emperf.training.job import Recipe

# Above this, attention over one sequence costs more than padding and a head in every row.
ONE_SEQUENCE = 640
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

    def forward(self, tokens: Tensor, attention: Tensor, response: Tensor, shared: int = 0) -> Tensor:
        before = F.pad(response[:, 1:], (0, 1))
        logits: Tensor = self.lm.get_base_model().get_output_embeddings()(
            self.hidden(tokens, attention, before, shared)
        )
        return logits.float()

    def hidden(self, tokens: Tensor, attention: Tensor, wanted: Tensor, shared: int = 0) -> Tensor:
        """Last hidden states [wanted tokens, width] of the tokens where `wanted` (bool, as `tokens`) holds.

        A batch of short rows goes through the decoder as one sequence: a tree whose root are the first `shared` tokens,
        the same in all rows, and whose branches do not see each other. A causal model gives them the activations that
        it would in rows of their own, and neither padding nor the root's copies are computed. Longer batches go as
        rows, because the attention of one sequence grows with its square.
        """
        base = self.lm.get_base_model()
        own = attention.bool()
        own[1:, :shared] = False
        window = getattr(base.config, "sliding_window", None) or tokens.shape[1]
        if int(own.sum()) > ONE_SEQUENCE or tokens.shape[1] > window:
            states: Tensor = base.get_decoder()(input_ids=tokens, attention_mask=attention, use_cache=False)[
                0
            ]
            return states[wanted]
        row, position = own.nonzero(as_tuple=True)
        root = (row == 0) & (position < shared)
        seen = ((row == row[:, None]) | root).tril()
        dtype = base.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=tokens.device).masked_fill_(
            ~seen, torch.finfo(dtype).min
        )
        states = base.get_decoder()(
            input_ids=tokens[own][None],
            attention_mask=mask[None, None],
            position_ids=position[None],
            use_cache=False,
        )[0]
        return states[0, wanted[own]]

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
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model.lm)
    partial = path.with_suffix(".partial")
    # Written here, not by safetensors: what it raises on a full disk is no OSError.
    partial.write_bytes(save({name: t.detach().float().cpu().contiguous() for name, t in state.items()}))
    partial.rename(path)
