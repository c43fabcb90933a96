"""GPUs lent to one user at a time, so that no two share a clock or a memory meter."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from emperf.core.errors import UserError


class Devices:
    """`indices`: the machine's GPUs; with none, every cell is lent none. `processes`: of a cell, each has one.

    Reading takes the first GPU. It is kept for that where all cells but one, or as many as without it, still find
    room; else reading borrows it between two cells, before the next one.
    """

    def __init__(self, indices: Sequence[int], processes: int) -> None:
        """Raises UserError if there are too few."""
        self._wanted = processes if indices else 0
        if self._wanted > len(indices):
            raise UserError(
                f"A cell trains in {processes} processes, a GPU each, and this machine has {len(indices)}",
                "Choose another division, or a machine with more.",
            )
        kept = len(indices) % processes > 0 or (processes == 1 and len(indices) > 1)
        self._free = list(indices[1:] if kept else indices)
        self._shared = None if kept or not indices else indices[0]
        self._readers = 0
        self._returned = threading.Condition()

    @property
    def cells(self) -> int:
        """How many cells can train at a time; 0 without GPUs."""
        return len(self._free) // self._wanted if self._wanted else 0

    @contextmanager
    def lent(self) -> Iterator[tuple[int, ...]]:
        """The GPUs of a cell, for as long as the block lasts; waits for them."""
        with self._returned:
            self._returned.wait_for(lambda: len(self._open()) >= self._wanted)
            taken = tuple(self._open()[: self._wanted])
            self._free = [index for index in self._free if index not in taken]
        try:
            yield taken
        finally:
            self._give_back(taken)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The GPU that reads, for as long as the block lasts; waits for it where cells use it too."""
        if self._shared is None:
            yield
            return
        with self._returned:
            self._readers += 1
            self._returned.wait_for(lambda: self._shared in self._free)
            self._readers -= 1
            self._free.remove(self._shared)
        try:
            yield
        finally:
            self._give_back((self._shared,))

    def _open(self) -> list[int]:
        """What a cell may take: not the GPU that a reader waits for."""
        return [index for index in self._free if not (self._readers and index == self._shared)]

    def _give_back(self, taken: tuple[int, ...]) -> None:
        with self._returned:
            self._free = sorted([*self._free, *taken])
            self._returned.notify_all()
