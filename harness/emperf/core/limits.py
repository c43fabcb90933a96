"""What one container may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Hard limits of one container, from the division.

    `memory_bytes` counts RAM (swap is always off), `output_bytes` bounds each file that the container writes.
    """

    wall_s: float
    memory_bytes: int
    cpus: float
    pids: int
    output_bytes: int
    tmp_bytes: int = 64 << 20
