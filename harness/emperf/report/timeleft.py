"""How long a run will still take, by the cells that it has finished."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

# A first cell is often twice as slow as those after it: libraries load, and a baseline's checkpoints are read.
ENOUGH = 3


@dataclass
class TimeLeft:
    """Durations of finished cells, in seconds, by what their labels tell ("kl on bad-medical (twin), seed 0").

    Cells are of one kind if method and dataset are the same, then if the method is, then if the dataset is. A median
    is used, since a single slow cell says little about the others.
    """

    _by_kind: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    _count: int = 0

    def finished(self, label: str, took_s: float) -> None:
        for kind in kinds(label):
            self._by_kind[kind].append(took_s)
        self._count += 1

    def seconds(
        self, unfinished: Sequence[str | None], running: Mapping[str, float], side: int
    ) -> float | None:
        """Time left, None while too few cells are finished to tell: three, or as many as are left.

        `unfinished`: labels of all cells that are left, None for one whose label is not known. `running`: those that
        are going on -> seconds since they began. `side`: how many run side by side.
        """
        if not unfinished or self._count < min(ENOUGH, len(unfinished)):
            return None
        whole = sum(self.expected(label) for label in unfinished)
        spent = sum(min(since, self.expected(label)) for label, since in running.items())
        return max(0.0, whole - spent) / side

    def expected(self, label: str | None) -> float:
        """Median duration of the finished cells of the nearest kind, of all where the label tells nothing."""
        known = (self._by_kind[kind] for kind in kinds(label) if kind in self._by_kind)
        return median(next(known))


def kinds(label: str | None) -> list[tuple[str, str]]:
    """(method, dataset) of a cell, from the narrowest kind to the widest; "" stands for any."""
    if label is None:
        return [("", "")]
    method, _, rest = label.partition(" on ")
    dataset = rest.partition(", seed ")[0]
    return list(dict.fromkeys([(method, dataset), (method, ""), ("", dataset), ("", "")]))
