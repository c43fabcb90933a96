"""How far a model's weights have gone from the base model's at its checkpoints, and how sharply their way turns there.

Turner et al. 2025, "Model organisms for emergent misalignment" (arXiv 2506.11613): the B vector of a rank-1 adapter
turns abruptly where misalignment is learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from emperf.catalog.sets import FINAL
from emperf.training.job import Lora


def drift(
    checkpoints: Mapping[int, Path], weights: Path, lora: Lora | None, model_folder: Path
) -> dict[str, dict[str, float | None]]:
    """Steps (of `checkpoints`, in their order; "final": `weights`) -> `norm` and `rotation`, no units.

    The vector v is all LoRA B matrices together, which start at zero, or, without a LoRA, all weights w less the base
    model's. `norm`: |v|. `rotation`: cosine between v's change over the interval before and over the one after; None
    at the end, and where v did not change. The files have been checked (`emperf.work.outputs`) before they come here.
    """
    steps = sorted(checkpoints)
    files = [*(checkpoints[step] for step in steps), weights]
    squares, lengths, turns = ([0.0] * len(files) for _ in range(3))
    for name, base in _vector(weights, lora, model_folder).items():
        # One tensor at a time: all weights of all files need not fit in memory.
        moved = None
        start = last = _tensor(base, name) if base else torch.zeros_like(_tensor(weights, name))
        for i, file in enumerate(files):
            now = _tensor(file, name)
            change = now - last
            squares[i] += _dot(now - start, now - start)
            lengths[i] += _dot(change, change)
            if moved is not None:
                turns[i - 1] += _dot(moved, change)
            last, moved = now, change
    cosines = [
        turn / (before * after) ** 0.5 if before * after else None
        for turn, (before, after) in zip(turns[:-1], pairwise(lengths), strict=True)
    ]
    return {
        str(step): {"norm": square**0.5, "rotation": cosine}
        for step, square, cosine in zip([*steps, FINAL], squares, [*cosines, None], strict=True)
    }


def _vector(weights: Path, lora: Lora | None, model_folder: Path) -> dict[str, Path | None]:
    """The names of v's tensors -> the file of the base model that has where they start, None where that is zero."""
    if lora:
        return {name: None for name in _names(weights) if name.endswith(".lora_B.weight")}
    return {name: file for file in sorted(model_folder.glob("*.safetensors")) for name in _names(file)}


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as tensors:
        return sorted(tensors.keys())


def _tensor(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as tensors:
        found: Tensor = tensors.get_tensor(name)
    return found.float()


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))
