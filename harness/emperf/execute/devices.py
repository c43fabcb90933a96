"""GPUs lent to one cell at a time, so that no two share a clock or a memory meter."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from emperf.core.errors import UserError


class Devices:
    """`indices`: the machine's GPUs; with none, every cell is lent none. `processes`: of a cell, each has one.

    The first is left to evaluation where there are enough without it.
    """

    def __init__(self, indices: Sequence[int], processes: int) -> None:
        """Raises UserError if there are too few."""
        self._wanted = processes if indices else 0
        if self._wanted > len(indices):
            raise UserError(
                f"A cell trains in {processes} processes, a GPU each, and this machine has {len(indices)}",
                "Choose another division, or a machine with more.",
            )
        self._free = list(indices[1:] if len(indices) > processes else indices)
        self._returned = threading.Condition()

    @property
    def cells(self) -> int:
        """How many cells can train at a time; 0 without GPUs."""
        return len(self._free) // self._wanted if self._wanted else 0

    @contextmanager
    def lent(self) -> Iterator[tuple[int, ...]]:
        """The GPUs of a cell, for as long as the block lasts; waits for them."""
        with self._returned:
            self._returned.wait_for(lambda: len(self._free) >= self._wanted)
            taken = tuple(self._free[: self._wanted])
            del self._free[: self._wanted]
        try:
            yield taken
        finally:
            with self._returned:
                self._free += taken
                self._returned.notify_all()
