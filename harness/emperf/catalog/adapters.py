"""An adapter that somebody already has, as PEFT lays it out: read, checked against its base, and put into one form.

The form is that of the benchmark's own adapters: A [r, in] and B [out, r] of each linear layer, the scale within B. An
adapter is data: nothing of its folder is run or unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from emperf.core.errors import UserError
from emperf.training.job import Lora

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# The scale of an adapter in this form is 1.
UNIT = Lora(r=1, alpha=1)
Tensors = dict[str, Tensor]

# Field of the configuration -> why an adapter that has it cannot be read, where its value is not empty.
UNREAD = {
    "modules_to_save": "it holds whole layers beside the adapter (modules_to_save)",
    "use_dora": "it is a DoRA, which changes the weights' norms too",
    "trainable_token_indices": "it trains rows of the embedding",
    "target_parameters": "it adapts parameters that are no linear layers (target_parameters)",
    "lora_bias": "its B has a bias",
    "alora_invocation_tokens": "it is active after some tokens only (aLoRA)",
    "arrow_config": "it mixes several adapters (Arrow)",
    "corda_config": "its base weights are other ones than the model's (CorDA)",
    "loftq_config": "its base weights are other ones than the model's (LoftQ)",
}
OTHER_BASE = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True)
class Adapter:
    """A PEFT folder. `base`: the model that it names, as its author called it; empty where it names none."""

    folder: Path
    base: str
    config: Mapping[str, Any]

    def scale(self, module: str) -> float:
        """By how much B A of a module counts."""
        rank, alpha = (
            self._pattern(f"{name}_pattern", module, self.config[field])
            for name, field in (("rank", "r"), ("alpha", "lora_alpha"))
        )
        return float(alpha / (rank**0.5 if self.config.get("use_rslora") else rank))

    def _pattern(self, name: str, module: str, otherwise: float) -> float:
        found = self.config.get(name) or {}
        key = next((k for k in found if module == k or module.endswith(f".{k}")), None)
        return float(otherwise if key is None else found[key])

    def tensors(self, shapes: Mapping[str, list[int]]) -> Tensors:
        """The adapter in the benchmark's form. `shapes`: linear layer of the base model -> [out, in].

        Raises UserError where it does not fit the base, or holds anything else.
        """
        raw = self._load()
        found: Tensors = {}
        for name, tensor in raw.items():
            module, side = split(name)
            if not side:
                raise self._unfit(f"it holds {name}, which is no part of a plain LoRA")
            if module not in shapes:
                raise self._unfit(
                    f"it adapts {module}, which the base model has not, or not as a linear layer"
                )
            if not bool(torch.isfinite(tensor).all()):
                raise self._unfit(f"{name} is not finite")
            found[f"{PREFIX}{module}.lora_{side}.weight"] = tensor.float()
        for module in {split(name)[0] for name in raw}:
            a, b = (found.get(f"{PREFIX}{module}.lora_{side}.weight") for side in "AB")
            if a is None or b is None:
                raise self._unfit(f"{module} has only one of its two matrices")
            out, given = shapes[module]
            if a.shape[0] != b.shape[1] or [b.shape[0], a.shape[1]] != [out, given]:
                shown = f"[{b.shape[0]}, {a.shape[1]}]"
                raise self._unfit(
                    f"its {module} is of shape {shown}, and the base model's of [{out}, {given}]"
                )
            b *= self.scale(module)
        if not found:
            raise self._unfit("it holds no weights")
        return found

    def _load(self) -> Tensors:
        path = self.folder / WEIGHTS
        if not path.is_file():
            pickled = (self.folder / "adapter_model.bin").is_file()
            why = "its weights are pickled" if pickled else f"it has no {WEIGHTS}"
            raise self._unfit(why, "Save it with PEFT as safetensors.")
        try:
            found: Tensors = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise self._unfit(f"{WEIGHTS} cannot be read ({error})", "Copy it again.") from None
        return found

    def _unfit(
        self, why: str, fix: str = "Name its base with --base, or measure another adapter."
    ) -> UserError:
        return UserError(f"The adapter {self.folder} cannot be measured: {why}", fix)


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def adapter(folder: Path) -> Adapter:
    """Raises UserError where the folder holds no adapter, or one of a kind that cannot be read."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        found = Adapter(folder, str(config.get("base_model_name_or_path") or ""), config)
        kind = config["peft_type"]
        valid = all(
            isinstance(config[name], int | float) and config[name] > 0 for name in ("r", "lora_alpha")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{folder} holds no adapter of PEFT ({CONFIG} is missing or damaged)",
            "Give a folder that PEFT saved.",
        ) from None
    if kind != "LORA":
        raise found._unfit(f"it is a {kind}, and only LoRA is read")
    if not valid:
        raise found._unfit("its r and lora_alpha are no positive numbers")
    why = next((why for name, why in UNREAD.items() if config.get(name)), None)
    starts = config.get("init_lora_weights")
    if why is None and isinstance(starts, str) and starts.lower().startswith(OTHER_BASE):
        why = f"its base weights are other ones than the model's ({starts})"
    if why is None and config.get("bias", "none") != "none":
        why = "it trains biases of the base model"
    if why is not None:
        raise found._unfit(why, "Merge it into its base, save the whole model, and measure that.")
    return found


def split(name: str) -> tuple[str, str]:
    """(module, "A" or "B") of a tensor's name, ("", "") where it is neither."""
    plain = (
        name.removeprefix(PREFIX)
        .replace(".lora_A.default.", ".lora_A.")
        .replace(".lora_B.default.", ".lora_B.")
    )
    for side in ("A", "B"):
        ending = f".lora_{side}.weight"
        if plain.endswith(ending):
            return plain.removesuffix(ending), side
    return "", ""


def random_like(tensors: Tensors, seed: int) -> Tensors:
    """A control: random directions, and a change of every layer with the norm that it has in `tensors`."""
    drawn = torch.Generator().manual_seed(seed)
    found: Tensors = {}
    for name, a in sorted(tensors.items()):
        module, side = split(name)
        if side != "A":
            continue
        b_name = f"{PREFIX}{module}.lora_B.weight"
        b = tensors[b_name]
        new_a, new_b = (torch.randn(t.shape, generator=drawn) for t in (a, b))
        size = norm(new_b, new_a)
        found[name], found[b_name] = new_a, new_b * (norm(b, a) / size if size else 0.0)
    return found


def norm(b: Tensor, a: Tensor) -> float:
    """Frobenius norm of B A, without making the product: sqrt(tr(B^T B A A^T))."""
    return float(((b.T @ b) * (a @ a.T).T).sum().clamp(min=0).sqrt())
