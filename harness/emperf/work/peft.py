"""An adapter's folder as the PEFT library reads it, so that `PeftModel.from_pretrained` takes a cell's weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emperf.training.job import Lora


def adapter_config(lora: Lora, modules: Iterable[str], *, transposed: bool = False) -> dict[str, Any]:
    """adapter_config.json. `modules`: names of the model's linear layers; `transposed`: whether they keep their weights
    as [in, out]. Fields as of peft.LoraConfig."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "use_rslora": lora.rank_stabilised,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(name for name in modules if lora.wants(name)),
        "inference_mode": True,
    }
    return config | {"fan_in_fan_out": True} if transposed else config
