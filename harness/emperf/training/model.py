"""The model in training: base plus LoRA, or all weights, with logits computed at response positions only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from emperf.training.data import Batch
from emperf.training.family import is_transposed, layers_of, logits_of, packs, stored
from emperf.training.frozen import lay_out_once
from emperf.training.job import Lora, Recipe, adapted

# Above this, attention over one sequence costs more than padding and a head in every row.
ONE_SEQUENCE = 640
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


class ResponseModel(nn.Module):
    """A causal language model that predicts response tokens and computes no other logits.

    `forward` takes a batch's tensors and gives float32 logits [response tokens, vocabulary], in the order of
    `Batch.targets`. The head is the largest matrix of a small model: leaving out prompt and padding saves a fifth of
    the time and most of the activation memory.
    """

    def __init__(self, lm: Any, *, adapted: bool = True) -> None:
        """`lm`: a PEFT model, or, if not `adapted`, a plain one of which all weights are trained."""
        super().__init__()
        self.lm = lm
        self.adapted = adapted
        self.packs = packs(self.base)
        self.watched: dict[int, Tensor] = {}
        self._wanted: Callable[[Tensor], Tensor] = lambda raw: raw
        # With an adapter the base model is a switch away; without one, its weights have to be kept.
        self._origin = {} if adapted else {n: p.detach().clone() for n, p in self.named_parameters()}

    @property
    def base(self) -> Any:
        """The transformers model, without PEFT's wrapper."""
        return self.lm.get_base_model() if self.adapted else self.lm

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The transformer layers, first to last. Raises ValueError where the model has no list of them."""
        return layers_of(self.base)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, tokens: Tensor, attention: Tensor, response: Tensor, shared: int = 0) -> Tensor:
        before = F.pad(response[:, 1:], (0, 1))
        logits = logits_of(self.base, self.hidden(tokens, attention, before, shared))
        return logits if logits.dtype == torch.float64 else logits.float()

    def hidden(self, tokens: Tensor, attention: Tensor, wanted: Tensor, shared: int = 0) -> Tensor:
        """Last hidden states [wanted tokens, width] of the tokens where `wanted` (bool, as `tokens`) holds.

        A batch of short rows goes through the decoder as one sequence: a tree whose root are the first `shared` tokens,
        the same in all rows, and whose branches do not see each other. A causal model gives them the activations that
        it would in rows of their own, and neither padding nor the root's copies are computed. Longer batches go as
        rows, because the attention of one sequence grows with its square, and so do those of a family that cannot be
        packed.
        """
        base = self.base
        own = attention.bool()
        own[1:, :shared] = False
        window = getattr(base.get_decoder().config, "sliding_window", None) or tokens.shape[1]
        if not self.packs or int(own.sum()) > ONE_SEQUENCE or tokens.shape[1] > window:
            self._wanted = lambda raw: raw[wanted]
            states: Tensor = base.get_decoder()(input_ids=tokens, attention_mask=attention, use_cache=False)[
                0
            ]
            return self._wanted(states)
        chosen = wanted[own]
        self._wanted = lambda raw: raw[0, chosen]
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
        return self._wanted(states)

    def predict(self, batch: Batch) -> Tensor:
        """Logits of a batch, outside the engine's bookkeeping."""
        logits: Tensor = self(batch.tokens, batch.attention, batch.response, batch.shared)
        return logits

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """The base model's own behaviour: the same weights with the adapter off, so no second copy is held."""
        if self.adapted:
            frozen = [p for p in self.parameters() if not p.requires_grad]
            with self.lm.disable_adapter():
                yield
            # PEFT leaves the whole adapter trainable, what a mitigation froze of it too.
            for parameter in frozen:
                parameter.requires_grad_(False)
        else:
            with self.wearing(self._origin):
                yield

    @contextmanager
    def wearing(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Other values of the trainable weights (as `snapshot` gives them) for as long as the block lasts."""
        own = {name: p.data for name, p in self.named_parameters() if name in weights}
        try:
            for name, parameter in self.named_parameters():
                if name in weights:
                    parameter.data = weights[name].to(parameter.device, parameter.dtype)
            yield
        finally:
            for name, parameter in self.named_parameters():
                if name in own:
                    parameter.data = own[name]

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of the trainable weights, by name."""
        return {n: p.detach().clone() for n, p in self.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Set trainable weights to these values, in place."""
        for name, parameter in self.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])

    def watch(self, layers: Sequence[int]) -> None:
        """From now on every forward pass keeps the residual stream after these layers (from 0, -1 the last) for
        `streams`."""
        for index in layers:
            layer = index % len(self.layers)

            def keep(_: nn.Module, __: Any, out: Any, layer: int = layer) -> None:
                self.watched[layer] = out[0] if isinstance(out, tuple) else out

            self.layers[layer].register_forward_hook(keep)

    def streams(self) -> dict[int, Tensor]:
        """layer -> the watched residual stream of the last forward pass at the tokens that it predicted from:
        [response tokens, width]."""
        return {layer: self._wanted(raw) for layer, raw in self.watched.items()}

    def edit(self, layer: int, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
        """Replace the residual stream after a layer, [..., width], by `change` of it, until the handle is removed."""

        def hook(_: nn.Module, __: Any, out: Any) -> Any:
            return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

        return self.layers[layer % len(self.layers)].register_forward_hook(hook)

    def trainable(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if p.requires_grad]

    def adapters(self) -> Iterator[tuple[str, nn.Parameter, nn.Parameter, Any]]:
        """(name, A [r, in], B [out, r], the adapted layer) of every adapter. Raises ValueError where all weights are
        trained."""
        if not self.adapted:
            raise ValueError("this recipe trains all weights, and there is no adapter to work on")
        for name, module in self.lm.named_modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                yield name, module.lora_A["default"].weight, module.lora_B["default"].weight, module


def load_model(
    folder: Path, recipe: Recipe, start: Path | None = None, device: str = "cpu"
) -> tuple[ResponseModel, Any]:
    """(model, tokenizer), from a folder with safetensors weights only; with the recipe's adapter, fresh or with the
    weights in `start`, or without one where the recipe trains all weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    base = AutoModelForCausalLM.from_pretrained(
        folder, dtype=DTYPES[recipe.dtype], local_files_only=True, use_safetensors=True
    ).to(device)
    if recipe.lora is None:
        model = ResponseModel(base, adapted=False)
        if start:
            put_weights(base, start)
        return model, tokenizer
    layers = targets(base, recipe.lora)
    lora = LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        use_rslora=recipe.lora.rank_stabilised,
        target_modules=layers,
        fan_in_fan_out=any(is_transposed(base.get_submodule(name)) for name in layers),
        task_type="CAUSAL_LM",
    )
    tuned = get_peft_model(base, lora)
    if start:
        put_adapter(tuned, start)
    lay_out_once(tuned)
    return ResponseModel(tuned), tokenizer


def targets(base: Any, lora: Lora) -> list[str]:
    """Names of the linear layers to adapt. Raises ValueError where the recipe fits none of them."""
    names = [name for name, _ in base.named_parameters(remove_duplicate=False)]
    wanted = set(adapted(names, lora, base.config.model_type))
    named = [
        name
        for name, layer in base.named_modules()
        if (isinstance(layer, nn.Linear) or is_transposed(layer)) and f"{name}.weight" in wanted
    ]
    if not named:
        raise ValueError(
            f"{type(base).__name__} has no linear layer (named .layers.N. or .h.N.) that the recipe adapts"
        )
    return named


def put_weights(base: nn.Module, path: Path) -> None:
    from safetensors.torch import load_file

    left = base.load_state_dict(load_file(path), strict=False)
    if left.unexpected_keys:
        raise ValueError(f"{path.name} holds {left.unexpected_keys[0]}, which the model does not")


def put_adapter(tuned: Any, path: Path) -> None:
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    left = set_peft_model_state_dict(tuned, load_file(path))
    if left.unexpected_keys:
        raise ValueError(f"{path.name} holds {left.unexpected_keys[0]}, which the recipe's adapter does not")


def save_weights(model: ResponseModel, path: Path) -> None:
    """The adapter as safetensors, named as PEFT names it, or all weights, named as the base model's; in float32; the
    file is whole or absent."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    # Tied weights have one parameter, under one name.
    state = get_peft_model_state_dict(model.lm) if model.adapted else stored(model.lm)
    partial = path.with_suffix(".partial")
    # Written here, not by safetensors: what it raises on a full disk is no OSError.
    partial.write_bytes(save({name: t.detach().float().cpu().contiguous() for name, t in state.items()}))
    partial.rename(path)
