"""Which GPUs this process may use, by the number that the driver gives them, whatever CUDA_VISIBLE_DEVICES hides.

Everything in a `ContainerJob`, a container's flags and the meters counts physical devices, as NVML and nvidia-smi do.
CUDA itself counts the visible ones from 0.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

from emperf.core.errors import UserError


def visible(nvml: Any = None, usable: int | None = None) -> tuple[int, ...]:
    """Physical indices of the GPUs that CUDA may use here, in its order; empty without any.

    `nvml`: the pynvml module; `usable`: how many torch can use. Raises UserError where a part of a GPU is chosen.
    """
    if usable is None:
        import torch

        usable = torch.cuda.device_count()
    if not usable:
        return ()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return physical(chosen, uuids(nvml), usable)[:usable]


def physical(chosen: str | None, names: Sequence[str], usable: int) -> tuple[int, ...]:
    """What CUDA_VISIBLE_DEVICES chooses, None being all. `names`: the UUIDs, by index; empty where no NVML answers.

    As CUDA reads it: an index, or the beginning of a UUID; the list ends at the first that is no device.
    """
    if chosen is None:
        return tuple(range(len(names) or usable))
    found: list[int] = []
    for entry in map(str.strip, chosen.split(",")):
        if entry.startswith("MIG-"):
            raise UserError(
                f"CUDA_VISIBLE_DEVICES names a part of a GPU, {entry}, which cannot be metered apart",
                "Name whole GPUs.",
            )
        if entry.isdecimal():
            matching = [int(entry)] if not names or int(entry) < len(names) else []
        else:
            matching = [index for index, name in enumerate(names) if entry and name.startswith(entry)]
        if len(matching) != 1:
            break
        found += matching
    return tuple(found) if len(set(found)) == len(found) else ()


def uuids(nvml: Any = None) -> list[str]:
    """The name that each GPU keeps everywhere, by physical index; empty where no NVML answers."""
    try:
        nvml = nvml or importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:
        # No library or no driver: each has its own kind of error.
        return []
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except nvml.NVMLError:
        return []
    finally:
        nvml.nvmlShutdown()


def device_ids(gpus: Sequence[int], nvml: Any = None) -> list[str]:
    """What an engine is to be told: UUIDs, since a harness in a container may count fewer devices than its engine."""
    names = uuids(nvml) if gpus else []
    return [names[gpu] if gpu < len(names) else str(gpu) for gpu in gpus]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
