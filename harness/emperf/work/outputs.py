"""What a container left, judged: two kinds of file are taken, as bytes and as tensors of the shape they need.

Nothing here runs, unpickles or follows anything. The weights' names and shapes are worked out from the
recipe and the base model's own header; the container's word is not needed for either.
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

from emperf.core.errors import CellFailure, FailureKind
from emperf.runtimes import OutputFile
from emperf.training.job import Lora, linear_weights

WANTED = re.compile(
    r"(adapter|model)\.safetensors|(report|probe)\.json|checkpoints/step-[0-9]{5}\.safetensors"
)
REPORT_BYTES = 1 << 20
MOST_ENTRIES = 10_000


def broke(detail: str) -> CellFailure:
    return CellFailure(FailureKind.BROKE_CONTRACT, detail)


def shown(name: str) -> str:
    """Text with names that the container chose, safe to print: 100 characters, control characters escaped."""
    return name.encode("unicode_escape").decode()[:100]


def take(entries: Iterable[OutputFile], into: Path, limit: int, needed: str) -> list[str]:
    """Copy the wanted files below `into`; the names taken. Other files are left; links are refused, and so is the want
    of the file `needed`.

    `limit`: bytes of all files together, wanted or not, since an engine sends them all, holes included. Raises
    CellFailure(BROKE_CONTRACT).
    """
    taken, total = [], 0
    for count, entry in enumerate(entries):
        if count >= MOST_ENTRIES:
            raise broke(f"/out holds more than {MOST_ENTRIES} files and folders")
        path = shown(entry.path)
        if entry.kind == "dir":
            continue
        if entry.kind != "file" or entry.open is None:
            raise broke(f"/out/{path} is a {entry.kind}; leave plain files and folders only")
        if entry.path.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt")):
            raise broke(f"/out/{path} may hold pickled code; leave weights as safetensors")
        total += entry.size
        if total > limit or (
            entry.path.endswith(".json") and entry.size > REPORT_BYTES and WANTED.fullmatch(entry.path)
        ):
            raise broke(
                f"/out/{path} makes it {total} bytes; allowed are {limit} in all, 1 MiB for the report"
            )
        if not WANTED.fullmatch(entry.path):
            continue
        target = into / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as source, target.open("wb") as sink:
            copy(source, sink, entry.size)
        taken.append(entry.path)
    if needed not in taken:
        raise broke(f"/out/{needed} is missing; the container must leave its weights there")
    return sorted(taken)


def copy(source: IO[bytes], sink: IO[bytes], size: int) -> None:
    left = size
    while left:
        block = source.read(min(left, 1 << 20))
        if not block:
            raise broke("an output file ended before its declared size")
        sink.write(block)
        left -= len(block)


def expected_weights(model_folder: Path, lora: Lora | None) -> dict[str, list[int]]:
    """Tensor name -> shape of what the recipe trains: a LoRA on linear weights, as PEFT names them, or, without one,
    every tensor of the base model under its own name.

    Linear weights are the two-dimensional ones below a transformer layer; embeddings and head lie outside.
    """
    shapes: dict[str, list[int]] = {}
    if lora is not None:
        for name, (out, given) in linear_weights(model_folder, lora).items():
            shapes[f"base_model.model.{name}.lora_A.weight"] = [lora.r, given]
            shapes[f"base_model.model.{name}.lora_B.weight"] = [out, lora.r]
        return shapes
    for file in sorted(model_folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    return shapes


def linear(model_folder: Path) -> list[str]:
    """Names of the base model's linear layers below a transformer layer."""
    whole = expected_weights(model_folder, Lora(r=1, alpha=1))
    ending = ".lora_A.weight"
    return [
        name.removeprefix("base_model.model.").removesuffix(ending) for name in whole if name.endswith(ending)
    ]


def check_weights(path: Path, expected: dict[str, list[int]]) -> None:
    """Raises CellFailure: BROKE_CONTRACT for what are no such weights, DIVERGED for values not finite."""
    try:
        with safe_open(path, framework="pt") as tensors:
            found = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
            for name in sorted(set(expected) ^ set(found)):
                what = "is missing from" if name in expected else "has no place in"
                raise broke(f"tensor {shown(name)} {what} {path.name}")
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
        raise broke(f"{path.name} is no safetensors file ({shown(str(error))})") from None


def read_report(path: Path) -> dict[str, Any]:
    """The trainer's own figures, for cross-checks: {} if there is none or it is of no use. Never scored."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        losses = [float(x) for x in raw["losses"]][:100_000]
        report: dict[str, Any] = {
            "steps": int(raw["steps"]),
            "train_s": float(raw["train_s"]),
            "tokens": int(raw["tokens"]),
            "losses": losses,
            "gradient_norms": [
                None if x is None else float(x) for x in raw.get("gradient_norms", [])[:100_000]
            ],
            "checkpoints": {str(k): int(v) for k, v in raw["checkpoints"].items()},
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}
    counts = [report["steps"], report["tokens"], report["train_s"], *report["checkpoints"].values()]
    norms = [x for x in report["gradient_norms"] if x is not None]
    return (
        report
        if min(counts) >= 0 and all(math.isfinite(x) for x in [report["train_s"], *losses, *norms])
        else {}
    )
