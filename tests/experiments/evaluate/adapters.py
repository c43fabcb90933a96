"""Adapters of PEFT's own making, and what `emperf eval` says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tests.tiny_benchmark import Tiny

from emperf import records

Json = dict[str, Any]
ASK = ("--base", "tiny", "--division", "tiny")
JUDGED = ("--judge", "tiny", "--questions", "open", "--samples", "3", "--most-tokens", "8")


def saved(benchmark: Tiny, folder: Path, seed: int = 0, **config: Any) -> Path:
    """An adapter of PEFT's own making, with random weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    base = AutoModelForCausalLM.from_pretrained(prepared_model(benchmark))
    tuned = get_peft_model(base, LoraConfig(**(given | config)))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    tuned.save_pretrained(folder)
    return folder


def prepared_model(benchmark: Tiny) -> Path:
    return next(path.parent for path in benchmark.home.rglob("model.safetensors"))


def record(said: Any) -> Json:
    assert said.exit_code == 0, said.output
    found: Json = json.loads(said.stdout)
    records.check("evaluation", found)
    return found


def by_name(found: Json) -> dict[str, Json]:
    return {model["name"]: model for model in found["models"]}
