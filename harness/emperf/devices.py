"""GPUs lent to one cell at a time, so that no two share a clock or a memory meter."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from emperf.errors import UserError


class Devices:
    """`indices`: the machine's GPUs; with none, every cell is lent none."""

    def __init__(self, indices: Sequence[int]) -> None:
        self._all, self._free, self._returned = len(indices), list(indices), threading.Condition()

    @contextmanager
    def lent(self, processes: int) -> Iterator[tuple[int, ...]]:
        """One GPU a process, for as long as the block lasts; waits for them. Raises UserError if there are too few."""
        wanted = processes if self._all else 0
        if wanted > self._all:
            raise UserError(
                f"A cell trains in {wanted} processes, a GPU each, and this machine has {self._all}",
                "Choose another division, or a machine with more.",
            )
        with self._returned:
            self._returned.wait_for(lambda: len(self._free) >= wanted)
            taken = tuple(self._free[:wanted])
            del self._free[:wanted]
        try:
            yield taken
        finally:
            with self._returned:
                self._free += taken
                self._returned.notify_all()
