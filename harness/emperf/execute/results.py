"""What is stored of cells, put together for scoring: readings by set, checkpoints, records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from emperf.catalog import Division
from emperf.execute.store import RunStore
from emperf.work.asks import ANSWERS, DRIFT, TASK, Asks, Read, steps_of
from emperf.work.plan import Cell

Json = dict[str, Any]


def reading_place(device: str) -> str:
    """Where readings are made: the device and the libraries, which decide their last digits."""
    return f"{device}, torch {version('torch')}, transformers {version('transformers')}"


class Results:
    """The cells of one division in one run. `device`: "cpu" or "cuda", where the readings are made."""

    def __init__(self, division: Division, store: RunStore, cells: Iterable[Cell], device: str) -> None:
        self.division, self.store, self.device = division, store, device
        self.cells = {cell.key: cell for cell in cells}
        self._known: dict[str, Json] = {}

    def asks(self, cell: Cell) -> Asks:
        return Asks(self.division, cell.model, reading_place(self.device))

    def reads(self, cell: Cell) -> list[Read]:
        """All readings of a cell's model and of its checkpoints."""
        steps = steps_of(self.division, self.division.sizes.train_rows) if cell.read_checkpoints else []
        return self.asks(cell).of_cell(cell, steps)

    def scores(self, key: str) -> Json | None:
        """A cell's readings: of a task `items`; else `readings` by set, `answers`, `checkpoints` (steps -> readings by
        set), `drift`; and the container's `losses` and `gradient_norms`. None where any of it is missing."""
        if key not in self._known:
            cell = self.cells[key]
            found, trained = self._found(self.reads(cell)), self.store.units.trained(cell.train)
            if found is None or trained is None:
                return None
            self._known[key] = found | {name: trained[name] for name in ("losses", "gradient_norms")}
        return self._known[key]

    def record(self, key: str) -> Json | None:
        """A cell as result.json shows it: what the host measured, or why there is nothing. None where it was not
        trained in this run, or not read whole."""
        cell = self.cells[key]
        record = self.store.record(cell.train)
        if record is None or (record["failure"] is None and self.scores(key) is None):
            return None
        named: Json = {
            "key": key, "label": cell.label, "method": cell.method, "data": asdict(cell.data), "seed": cell.seed,
        }  # fmt: skip
        return named | ({"antidote": cell.antidote} if cell.antidote else {}) | record

    def base(self) -> Json:
        """The base model's readings, `poisons` and `tasks` by name; without those that are not there."""
        out: Json = {"poisons": {}, "tasks": {}}
        for cell in self.cells.values():
            kind = f"{cell.data.kind}s"
            if kind in out and cell.data.name not in out[kind]:
                found = self._found(self.asks(cell).of_base(cell))
                if found is not None:
                    out[kind][cell.data.name] = found
        return out

    def _found(self, reads: Iterable[Read]) -> Json | None:
        out: Json = {"readings": {}, "checkpoints": {}}
        for read in reads:
            content = self.store.units.readings(read.key)
            if content is None:
                return None
            name = read.asked.name
            if read.step is not None:
                out["checkpoints"].setdefault(str(read.step), {})[name] = content
            elif name == TASK:
                return {"items": content}
            elif name in (ANSWERS, DRIFT):
                out[name] = content
            else:
                out["readings"][name] = content
        return out
