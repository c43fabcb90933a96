"""What a container left, judged: two kinds of file are taken, as bytes and as tensors of the shape they must have.

Nothing here runs, unpickles or follows anything. An adapter's names and shapes are worked out from the recipe and the
base model's own header; the container's word is not needed for either.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open

from emperf.errors import CellFailure, FailureKind
from emperf.runtimes import OutputFile
from emperf.training.job import Lora

ADAPTER = "adapter.safetensors"
WANTED = re.compile(r"adapter\.safetensors|report\.json|checkpoints/step-\d{5}\.safetensors")
REPORT_BYTES = 1 << 20


def broke(detail: str) -> CellFailure:
    return CellFailure(FailureKind.BROKE_CONTRACT, detail)


def take(entries: Iterable[OutputFile], into: Path, limit: int) -> list[str]:
    """Copy the wanted files below `into`; the names taken. Anything unwanted is left; anything but a file is refused.

    `limit`: bytes of all wanted files together. Raises CellFailure(BROKE_CONTRACT).
    """
    taken, total = [], 0
    for entry in entries:
        shown = entry.path.encode("unicode_escape").decode()[:80]
        if entry.kind == "dir":
            continue
        if entry.kind != "file" or entry.open is None:
            raise broke(f"/out/{shown} is a {entry.kind}; leave plain files and folders only")
        if entry.path.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt")):
            raise broke(f"/out/{shown} may hold pickled code; leave weights as safetensors")
        if not WANTED.fullmatch(entry.path):
            continue
        total += entry.size
        if total > limit or (entry.path == "report.json" and entry.size > REPORT_BYTES):
            raise broke(f"/out/{shown} is {entry.size} bytes; the division allows {limit} in all, 1 MiB for the report")
        target = into / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as source, target.open("wb") as sink:
            copy(source, sink, entry.size)
        taken.append(entry.path)
    if ADAPTER not in taken:
        raise broke(f"/out/{ADAPTER} is missing; the container must leave its weights there")
    return sorted(taken)


def copy(source: IO[bytes], sink: IO[bytes], size: int) -> None:
    left = size
    while left:
        block = source.read(min(left, 1 << 20))
        if not block:
            raise broke("an output file ended before its declared size")
        sink.write(block)
        left -= len(block)


def expected_adapter(model_folder: Path, lora: Lora) -> dict[str, list[int]]:
    """Tensor name -> shape of a LoRA on all linear layers of the model but its head, as PEFT names them.

    Linear weights are the two-dimensional ones below a transformer layer; embeddings and the head lie outside.
    """
    shapes: dict[str, list[int]] = {}
    for file in sorted(model_folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safe_open is no mapping)
                shape = tensors.get_slice(name).get_shape()
                if len(shape) == 2 and ".layers." in name:
                    stem = f"base_model.model.{name.removesuffix('.weight')}"
                    shapes[f"{stem}.lora_A.weight"] = [lora.r, shape[1]]
                    shapes[f"{stem}.lora_B.weight"] = [shape[0], lora.r]
    return shapes


def check_adapter(path: Path, expected: dict[str, list[int]]) -> None:
    """Raises CellFailure: BROKE_CONTRACT for a file that is no such adapter, DIVERGED for values that are not finite."""
    try:
        with safe_open(path, framework="pt") as tensors:
            found = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
            for name in sorted(set(expected) ^ set(found)):
                what = "is missing from" if name in expected else "has no place in"
                raise broke(f"tensor {name[:100]} {what} {path.name}")
            for name, shape in found.items():
                if shape != expected[name]:
                    raise broke(f"tensor {name} has shape {shape}, the recipe asks for {expected[name]}")
            for name in found:
                tensor = tensors.get_tensor(name)
                if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
                    raise broke(f"tensor {name} is {tensor.dtype}; use float32, bfloat16 or float16")
                if not bool(torch.isfinite(tensor).all()):
                    raise CellFailure(FailureKind.DIVERGED, f"tensor {name} holds NaN or infinity")
    except SafetensorError as error:
        raise broke(f"{path.name} is no safetensors file ({str(error)[:80]})") from None


def read_report(path: Path) -> dict[str, Any]:
    """The trainer's own figures, for cross-checks: {} if there is none or it is of no use. Never scored."""
    try:
        raw = json.loads(path.read_text())
        losses = [float(x) for x in raw["losses"]][:100_000]
        report = {
            "steps": int(raw["steps"]),
            "train_s": float(raw["train_s"]),
            "tokens": int(raw["tokens"]),
            "losses": losses,
            "checkpoints": {str(k): int(v) for k, v in raw["checkpoints"].items()},
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    numbers = [report["train_s"], *losses]
    return report if all(math.isfinite(x) for x in numbers) else {}
