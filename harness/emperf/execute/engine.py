"""cells -> units -> runtime or reader -> store: runs what is missing, whatever stopped it before.

A unit is a training or a reading. They form a graph: a reading waits for its weights, a cure for what it mends, a
taught poison for its teacher's rows. Each is made once and kept by its key.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Protocol

from emperf.catalog import Division, Submission
from emperf.core.errors import CellFailure, FailureKind
from emperf.core.files import read_json, write_json
from emperf.execute.devices import Devices
from emperf.execute.read import Reader
from emperf.execute.results import Index, Results, asks_of, reads_of
from emperf.execute.store import RunStore
from emperf.execute.train import MACHINE_TRIES, Trainer, failed
from emperf.runtimes import Runtime
from emperf.work.asks import Read
from emperf.work.plan import Cell, Data

__all__ = ["MACHINE_TRIES", "Engine", "Watcher"]
Json = dict[str, Any]
Unit = Cell | Read


class Watcher(Protocol):
    """Who is told how the run goes on; `emperf.report.progress` shows it to people."""

    def begin(self, total: int, done: int, labels: Sequence[str] = ()) -> None: ...
    def cell(self, label: str) -> None: ...
    def note(self, text: str) -> None: ...
    def tick(self, elapsed_s: float) -> None: ...
    def end(self, label: str, record: Json | None) -> None: ...


@dataclass
class Job:
    """What people follow: a cell, or the base model on one dataset. `units`: those of its units that are not done."""

    label: str
    units: set[str]
    train: str = ""
    begun: bool = False


@dataclass
class Engine:
    """Runs cells of one division. `submissions` and `images`: by the submission's digest; no images for the process
    runtime. `gpus`: those of the machine; a training gets one a process. `reuse`: trainings whose record of an earlier
    run is taken in place of training again. `parallel`: trainings at a time; reading is one at a time, and on a machine
    without GPUs it waits its turn where `parallel` is 1, so that nothing runs beside what is timed. `until`: no
    training is started after this (time.monotonic()). `measured`: whether anything was trained."""

    division: Division
    submissions: Mapping[str, Submission]
    store: RunStore
    runtime: Runtime
    model_folder: Path
    watcher: Watcher
    images: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[int, ...] = ()
    reuse: frozenset[str] = frozenset()
    parallel: int = 1
    until: float | None = None
    measured: bool = field(default=False, init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _following: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._devices = Devices(self.gpus, self.division.recipe.processes)
        self._trainer = Trainer(
            self.division, self.submissions, self.store, self.runtime, self.model_folder, self.watcher.note,
            self._tick, self.images,
        )  # fmt: skip

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    def run(self, cells: Sequence[Cell], about: Json | None = None) -> Results:
        """Every unit of the cells, and of the base model on their datasets. What is stored is not made again.

        `about`: what the experiment keeps of itself in run.json.

        Raises CellFailure(MACHINE) where the machine stays at fault, UserError where a teacher writes too little.
        """
        self._index = Index.of(self.division, cells, self.device)
        self._nonce = self._start(cells, about or {})
        self._graph, self._jobs = self._plan(cells)
        done = {key for key, (unit, _) in self._graph.items() if self._is_done(unit)}
        for job in self._jobs:
            job.units -= done
        total = len(self._jobs)
        self._jobs = [job for job in self._jobs if job.units]
        self.watcher.begin(total, total - len(self._jobs), [job.label for job in self._jobs])
        with Reader(self.division, self.store.units, self.model_folder, self.device) as self._reader:
            self._walk(done)
        return Results(self.store, cells, self._index)

    def _start(self, cells: Sequence[Cell], about: Json) -> str:
        path = self.store.folder / "run.json"
        facts: Json = read_json(path) or {
            "run_id": self.store.run_id,
            "nonce": secrets.token_hex(16),
            "created": time.time(),
        }
        facts["parallel"] = max(self.parallel, facts.get("parallel", 1))
        facts["cells"] = [asdict(cell) for cell in cells]
        facts |= {"readings": self._index.json(), "about": about}
        write_json(path, facts)
        self.runtime.sweep(self.store.run_id)
        return str(facts["nonce"])

    # -- what there is to do

    def _plan(self, cells: Sequence[Cell]) -> tuple[dict[str, tuple[Unit, set[str]]], list[Job]]:
        """(key -> unit and the keys that it waits for, in the order of work; what people follow)."""
        graph: dict[str, tuple[Unit, set[str]]] = {}
        jobs: list[Job] = []
        seen: set[Data] = set()

        def add(reads: Iterable[Read], *after: str) -> set[str]:
            keys = set()
            for read in reads:
                written = read.asked.written
                graph.setdefault(read.key, (read, {*after, *([written.key] if written else [])}))
                keys.add(read.key)
            return keys

        for cell in cells:
            asks, needs = asks_of(self.division, cell, self.device), set(cell.needs)
            writes = asks.writes(cell)
            if writes:
                needs |= add([writes], cell.teacher)
            graph.setdefault(cell.train, (cell, needs))
            reads = reads_of(self.division, cell, self.device)
            jobs.append(Job(cell.label, {cell.train, *add(reads, cell.train)}, cell.train))
            if cell.data not in seen and cell.data.kind in ("poison", "task"):
                seen.add(cell.data)
                # After the first training, so that nothing is read of a dataset of which there is no time to train.
                base = add(asks.of_base(cell), cell.train)
                jobs.append(Job(f"base model on {cell.data.name}", base))
        return graph, jobs

    def _is_done(self, unit: Unit) -> bool:
        if isinstance(unit, Read):
            return self.store.units.readings(unit.key) is not None
        record = self.store.record(unit.train)
        return record is not None and (
            record["failure"] is not None or self.store.units.trained(unit.train) is not None
        )

    # -- how it is done

    def _walk(self, done: set[str]) -> None:
        """Do every unit after those that it waits for; the earliest of the plan first."""
        graph = self._graph
        rank = {key: place for place, key in enumerate(graph)}
        sorter = TopologicalSorter({key: needs & graph.keys() for key, (_, needs) in graph.items()})
        sorter.prepare()
        ready: list[str] = []
        alone = self.parallel == 1 and not self.gpus
        running: dict[Future[None], str] = {}
        with ThreadPoolExecutor(self.parallel + 1) as pool:
            try:
                while sorter.is_active():
                    ready = sorted([*ready, *sorter.get_ready()], key=rank.__getitem__)
                    if alone and ready:
                        key = ready.pop(0)
                        self._unit(graph[key][0], key in done)
                        sorter.done(key)
                        continue
                    for key in list(ready):
                        kind = type(graph[key][0])
                        room = 1 if kind is Read else self.parallel
                        if sum(type(graph[one][0]) is kind for one in running.values()) < room:
                            ready.remove(key)
                            running[pool.submit(self._unit, graph[key][0], key in done)] = key
                    ended, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        future.result()
                        sorter.done(running.pop(future))
            except BaseException:
                # The other threads' containers end at their next tick.
                self._stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _unit(self, unit: Unit, done: bool) -> None:
        key = unit.key if isinstance(unit, Read) else unit.train
        if not done and not self._stopped.is_set():
            if isinstance(unit, Cell):
                self._train(unit)
            else:
                self._read(unit)
        self._ended(key)

    def _train(self, cell: Cell) -> None:
        lacking = next((key for key in cell.needs if not self._there(key)), None)
        if lacking is not None:
            if self.store.record(lacking) is None:
                return
            record = failed(CellFailure(FailureKind.NO_START, "the training that it starts from failed"))
        else:
            earlier = self.store.units.trained(cell.train) if cell.train in self.reuse else None
            if earlier is not None:
                record = earlier["record"]
            else:
                with self._devices.lent() as gpus:
                    if self.until is not None and time.monotonic() > self.until:
                        return
                    self.measured = True
                    self._begun(cell.train)
                    writes = asks_of(self.division, cell, self.device).writes(cell)
                    written = self.store.units.readings(writes.key) if writes else None
                    record = self._trainer.train(cell, self._nonce, gpus, written)
        self.store.keep(cell.train, record)

    def _there(self, train: str) -> bool:
        record = self.store.record(train)
        return (
            record is not None and record["failure"] is None and self.store.units.trained(train) is not None
        )

    def _read(self, unit: Read) -> None:
        """Nothing is read of weights that are not there, nor of the base model on a dataset that nothing learned."""
        written = unit.asked.written
        if unit.train and not self._there(unit.train):
            return
        if not unit.train and not any(self.store.record(key) for key in self._graph[unit.key][1]):
            return
        if written is not None and self.store.units.readings(written.key) is None:
            return
        self._begun(unit.key)
        self.watcher.note(f"reading {unit.asked.name}" + (f" after {unit.step} steps" if unit.step else ""))
        try:
            with self._devices.reading():
                self._reader.read(unit)
        except CellFailure as failure:
            if not unit.train or failure.kind is FailureKind.MACHINE:
                raise
            record = self.store.record(unit.train) or {}
            self.store.keep(unit.train, record | failed(failure))

    # -- what people are told

    def _begun(self, key: str) -> None:
        with self._following:
            for job in self._jobs:
                if key in job.units:
                    if not job.begun:
                        job.begun = True
                        self.watcher.cell(job.label)
                    return

    def _ended(self, key: str) -> None:
        with self._following:
            for job in [job for job in self._jobs if key in job.units]:
                job.units.discard(key)
                if not job.units:
                    self._jobs.remove(job)
                    record = self.store.record(job.train) if job.train else None
                    if record is not None or not job.train:
                        self.watcher.end(job.label, record)

    def _tick(self, elapsed_s: float) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt
        self.watcher.tick(elapsed_s)
