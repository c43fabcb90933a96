"""What a job left, as numbers: the probe's word, the report's, and how far weights lie apart."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import load_file
from torch import Tensor

from emperf.core import schemas
from emperf.work.outputs import shown

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
TYPES = ("float", "int", "str", "bool")


@dataclass(frozen=True)
class Effect:
    """As of `emperf.training.probe.Probe`."""

    rows: int
    rows_changed: int
    steps: int
    gradient: float
    weights: float
    engine: float
    parameters: dict[str, str]


def read_effect(path: Path) -> Effect:
    """Raises ValueError for anything but finite, non-negative numbers and names of the probe's own."""
    raw = strict_json(path)
    if not isinstance(raw, dict) or set(raw) != set(Effect.__annotations__):
        raise ValueError(f"{path.name} has not the probe's fields")
    parameters = raw["parameters"]
    if not isinstance(parameters, dict) or not all(
        NAME.fullmatch(name) and kind in TYPES for name, kind in parameters.items()
    ):
        raise ValueError(f"{path.name}: parameters are not names with types")
    counts = [amount(raw, name, whole=True) for name in ("rows", "rows_changed", "steps")]
    rows, changed, steps = map(int, counts)
    gradient, weights, engine = (amount(raw, name) for name in ("gradient", "weights", "engine"))
    return Effect(rows, changed, steps, gradient, weights, engine, dict(parameters))


def amount(raw: dict[str, Any], name: str, *, whole: bool = False) -> float:
    value = raw[name]
    wanted = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted) or not 0 <= value < 1e300:
        raise ValueError(f"{name} is {shown(str(value))}, not a finite number from 0 up")
    return value


def read_steps(path: Path, job_id: str) -> int:
    """The steps that a report of this job claims. Raises ValueError where it breaks its schema."""
    raw = strict_json(path)
    schemas.check("report", raw)
    if raw["job_id"] != job_id:
        raise ValueError("job_id: it is another job's")
    return int(raw["steps"])


def strict_json(path: Path) -> Any:
    """JSON with finite numbers alone. Raises ValueError."""

    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{path.name} holds {word}")

    try:
        return json.loads(path.read_bytes(), parse_constant=refuse)
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None


def largest_difference(a: Path, b: Path) -> float:
    """max |a - b| over all weights of two files with the same tensors."""
    one, other = load_file(a), load_file(b)
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def relative_difference(a: Path, b: Path) -> float:
    """|BA - B'A'| / |B'A'| over all adapted weights: what two adapters do to the model, whatever their factors are."""
    one, other = products(a), products(b)
    apart = math.sqrt(sum(float((one[n] - other[n]).square().sum()) for n in other))
    return apart / math.sqrt(sum(float(w.square().sum()) for w in other.values()))


def products(adapter: Path) -> dict[str, Tensor]:
    tensors = {name: tensor.to(torch.float64) for name, tensor in load_file(adapter).items()}
    return {
        name: tensors[name.replace(".lora_A.", ".lora_B.")] @ a
        for name, a in tensors.items()
        if ".lora_A." in name
    }
