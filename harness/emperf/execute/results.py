"""What is stored of cells, put together for scoring: readings by set, checkpoints, records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from emperf.catalog import Division
from emperf.execute.store import RunStore
from emperf.work.asks import ANSWERS, DRIFT, FREE, TASK, Asks, Read, steps_of
from emperf.work.plan import Cell

Json = dict[str, Any]


def reading_place(device: str) -> str:
    """Where readings are made: the device and the libraries, which decide their last digits."""
    return f"{device}, torch {version('torch')}, transformers {version('transformers')}"


def asks_of(division: Division, cell: Cell, device: str) -> Asks:
    """What is read of models in the division of a cell."""
    return Asks(division, cell.model, reading_place(device))


def reads_of(division: Division, cell: Cell, device: str) -> list[Read]:
    """All readings of a cell's model and of its checkpoints."""
    steps = steps_of(division, division.sizes.train_rows) if cell.read_checkpoints else []
    return asks_of(division, cell, device).of_cell(cell, steps)


@dataclass(frozen=True)
class Ref:
    """A stored reading: its set, the checkpoint that was read, its key."""

    name: str
    step: int | None
    key: str

    @staticmethod
    def of(reads: Iterable[Read]) -> tuple[Ref, ...]:
        return tuple(Ref(read.asked.name, read.step, read.key) for read in reads)


@dataclass(frozen=True)
class Index:
    """Where the readings are: cell key -> its model's; "poison NAME" or "task NAME" -> the base model's."""

    cells: Mapping[str, Sequence[Ref]]
    base: Mapping[str, Sequence[Ref]]

    @staticmethod
    def of(division: Division, cells: Iterable[Cell], device: str) -> Index:
        base: dict[str, Sequence[Ref]] = {}
        own = {}
        for cell in cells:
            own[cell.key] = Ref.of(reads_of(division, cell, device))
            name = f"{cell.data.kind} {cell.data.name}"
            if cell.data.kind in ("poison", "task") and name not in base:
                base[name] = Ref.of(asks_of(division, cell, device).of_base(cell))
        return Index(own, base)

    def json(self) -> Json:
        return {
            part: {name: [[ref.name, ref.step, ref.key] for ref in refs] for name, refs in found.items()}
            for part, found in (("cells", self.cells), ("base", self.base))
        }

    @staticmethod
    def parse(raw: Json) -> Index:
        """From what `json` gave. Raises ValueError, TypeError, KeyError or AttributeError for anything else."""
        cells, base = (
            {name: tuple(Ref(*ref) for ref in refs) for name, refs in raw[part].items()}
            for part in ("cells", "base")
        )
        return Index(cells, base)


class Results:
    """The cells of one run, and where their readings are."""

    def __init__(self, store: RunStore, cells: Iterable[Cell], index: Index) -> None:
        self.store, self.index = store, index
        self.cells = {cell.key: cell for cell in cells}
        self._known: dict[str, Json] = {}

    def scores(self, key: str) -> Json | None:
        """A cell's readings: of a task `items`; else `readings` by set, `answers`, `checkpoints` (steps -> readings by
        set), `drift`; and the container's `losses` and `gradient_norms`. None where any of it is missing."""
        if key not in self._known:
            found = self._found(self.index.cells[key])
            trained = self.store.units.trained(self.cells[key].train)
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

    def texts(self, key: str) -> str | None:
        """The key of a cell's free answers, None where it has none."""
        return next((ref.key for ref in self.index.cells[key] if ref.name == FREE and ref.step is None), None)

    def base_texts(self, poison: str) -> str | None:
        """The same of the base model, as it was read for a poison."""
        return next(
            (ref.key for ref in self.index.base.get(f"poison {poison}", ()) if ref.name == FREE), None
        )

    def base(self) -> Json:
        """The base model's readings, `poisons` and `tasks` by name; without those that are not there."""
        out: Json = {"poisons": {}, "tasks": {}}
        for name, refs in self.index.base.items():
            kind, _, dataset = name.partition(" ")
            found = self._found(refs)
            if found is not None:
                out[f"{kind}s"][dataset] = found
        return out

    def keys(self) -> list[str]:
        """Of every training and reading that the scores stand on, sorted."""
        trained = {cell.train for cell in self.cells.values()}
        return sorted(trained | {ref.key for refs in self.index.cells.values() for ref in refs})

    def _found(self, refs: Iterable[Ref]) -> Json | None:
        out: Json = {"readings": {}, "checkpoints": {}}
        for ref in refs:
            content = self.store.units.readings(ref.key)
            if content is None:
                return None
            if ref.step is not None:
                out["checkpoints"].setdefault(str(ref.step), {})[ref.name] = content
            elif ref.name == TASK:
                return {"items": content}
            elif ref.name in (ANSWERS, DRIFT, FREE):
                out[ref.name] = content
            else:
                out["readings"][ref.name] = content
        return out
