"""cells -> runtime and meters -> evaluation -> store: runs what is missing, whatever stopped it before."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from emperf import catalog
from emperf.catalog import Division, Submission
from emperf.core import digests
from emperf.core.errors import CellFailure, FailureKind, UserError
from emperf.evaluation import subliminal
from emperf.evaluation.cell import read_base, read_poison, read_task
from emperf.evaluation.drift import drift
from emperf.evaluation.language_model import LanguageModel
from emperf.execute.devices import Devices
from emperf.execute.store import RunStore, disk_errors, read_json, write_json
from emperf.meters.nvml import GpuMeter
from emperf.runtimes import ContainerJob, Outcome, Runtime
from emperf.training.__main__ import DIVERGED, HOOK, NO_ROOM, UNUSABLE
from emperf.training.job import Recipe
from emperf.work import jobs, outputs, rows
from emperf.work.plan import Cell, Data

MACHINE_TRIES = 3


class Watcher(Protocol):
    """Who is told how the run goes on; `emperf.report.progress` shows it to people."""

    def begin(self, total: int, done: int) -> None: ...
    def cell(self, label: str) -> None: ...
    def note(self, text: str) -> None: ...
    def tick(self, elapsed_s: float) -> None: ...
    def end(self, label: str, record: dict[str, Any] | None) -> None: ...


@dataclass
class Engine:
    """Runs cells of one division. `submissions` and `images`: by the submission's digest; no images for the process
    runtime. `gpus`: those of the machine; a cell gets one a process. `reuse`: take an earlier run's record of a cell
    whose weights are there, in place of measuring it again. `parallel`: cells that train at a time; evaluation is one
    at a time. `until`: no cell is started after this (time.monotonic()), nor is a dataset's base model read of which
    there is no cell."""

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
    _devices: Devices = field(init=False)
    _evaluating: Any = field(default_factory=threading.Lock, init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        self._devices = Devices(self.gpus, self.division.recipe.processes)

    @cached_property
    def lm(self) -> LanguageModel:
        """The base model, loaded once for all readings."""
        import torch

        if not self.gpus:
            torch.set_num_threads(self.division.recipe.threads)
        return LanguageModel(self.model_folder, device="cuda" if self.gpus else "cpu")

    def run(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Every cell, none before one that it needs, then the base model's readings, which it gives. What is stored
        already is not measured again."""
        nonce = self._start(cells)
        datasets = list(dict.fromkeys(c.data for c in cells if c.data.kind in ("poison", "task")))
        done = sum(self.store.cell(cell.key) is not None for cell in cells)
        first = {data: next(cell for cell in cells if cell.data == data) for data in datasets}
        known = sum(
            self.store.cells.scores(self._base_key(first[data], data)) is not None for data in datasets
        )
        self.watcher.begin(len(cells) + len(datasets), done + known)
        missing = [cell for cell in cells if self.store.cell(cell.key) is None]
        if self.parallel > 1:
            self._side_by_side(missing, nonce)
        else:
            for cell in missing:
                self._one(cell, nonce)
        stored = {cell.data for cell in cells if self.store.cell(cell.key) is not None}
        base: dict[str, Any] = {"poisons": {}, "tasks": {}}
        for data in datasets:
            if data not in stored or (first[data].teacher and self._weights(first[data].teacher) is None):
                continue
            base[f"{data.kind}s"][data.name] = self._base(first[data], base["poisons"])
        return base

    def _start(self, cells: Sequence[Cell]) -> str:
        path = self.store.folder / "run.json"
        facts: dict[str, Any] = read_json(path) or {
            "run_id": self.store.run_id,
            "nonce": secrets.token_hex(16),
            "created": time.time(),
        }
        facts["parallel"] = max(self.parallel, facts.get("parallel", 1))
        facts["cells"] = [{"key": c.key, **asdict(c)} for c in cells]
        write_json(path, facts)
        self.runtime.sweep(self.store.run_id)
        return str(facts["nonce"])

    def _side_by_side(self, cells: Sequence[Cell], nonce: str) -> None:
        with ThreadPoolExecutor(self.parallel) as pool:
            started: dict[str, Future[None]] = {}
            for cell in cells:
                waits = [started[key] for key in cell.needs if key in started]
                started[cell.key] = pool.submit(self._one, cell, nonce, waits)
            try:
                for future in started.values():
                    future.result()
            except BaseException:
                # The other threads' containers end at their next tick.
                self._stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _tick(self, elapsed_s: float) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt
        self.watcher.tick(elapsed_s)

    def _one(self, cell: Cell, nonce: str, waits: Sequence[Future[None]] = ()) -> None:
        for earlier in waits:
            earlier.result()
        record = self._earlier(cell)
        if record is None:
            with self._devices.lent() as gpus:
                if self.until is not None and time.monotonic() > self.until:
                    return
                self.measured = True
                self.watcher.cell(cell.label)
                record = self._cell(cell, nonce, gpus)
        write_json(self.store.cell_file(cell.key), record)
        self.watcher.end(cell.label, record)

    def _earlier(self, cell: Cell) -> dict[str, Any] | None:
        return self.store.cells.record(cell.key) if cell.key in self.reuse else None

    def _base_key(self, cell: Cell, data: Data) -> str:
        device = "cuda" if self.gpus else "cpu"
        known_by = [
            asdict(self.division.sizes),
            cell.model,
            cell.rules,
            device,
            data.kind,
            data.name,
            cell.teacher,
        ]
        return "base-" + digests.short(digests.of_json(known_by))

    def _base(self, cell: Cell, others: dict[str, Any]) -> dict[str, Any]:
        """Readings of the base model, kept with the cells, since every submission shares them."""
        key = self._base_key(cell, cell.data)
        stored = self.store.cells.scores(key)
        if stored is not None:
            return stored
        self.watcher.cell(f"base model on {cell.data.name}")
        if cell.data.kind == "task":
            task = catalog.task(cell.data.name)
            scores = read_task(self.lm, self.division, task, None, self.watcher.note)
        else:
            poison = catalog.poison(cell.data.name)
            shared = next(iter(others.values()), None)
            scores = read_base(self.lm, self.division, poison, self._heldout(cell), shared)
        with self.store.cells.writing(key) as folder:
            write_json(folder / "scores.json", scores)
        self.watcher.end(f"base model on {cell.data.name}", None)
        return scores

    def _cell(self, cell: Cell, nonce: str, gpus: tuple[int, ...]) -> dict[str, Any]:
        """The cell's record in this run. A machine fault is tried again, then raised: it is never scored."""
        lacking = [key for key in cell.needs if self._weights(key) is None]
        if lacking:
            return record_of(cell, None, None, CellFailure(FailureKind.NO_START, f"cell {lacking[0]} failed"))
        for attempt in range(MACHINE_TRIES):
            job = self._job(cell, jobs.job_id(nonce, cell, attempt + int(time.time())), gpus)
            try:
                record = self._attempt(cell, job)
            except CellFailure as failure:
                self.store.attempt(
                    cell.key, job=job.job_id, failure=failure.kind.value, detail=failure.detail
                )
                if failure.kind is not FailureKind.MACHINE:
                    return record_of(cell, None, None, failure)
                if attempt + 1 == MACHINE_TRIES:
                    raise
                self.watcher.note(f"machine fault, tried again: {failure.detail}")
            else:
                self.store.attempt(cell.key, job=job.job_id, failure=None)
                return record
            finally:
                self.runtime.cleanup(job)
        raise AssertionError("unreachable")

    def _job(self, cell: Cell, identity: str, gpus: tuple[int, ...]) -> ContainerJob:
        submission = self.submissions[cell.submission]
        generated = self._generated(cell)
        trusted = start = None
        if submission.trusted:
            # The rows of a poison that is generated are those of its own run.
            own = generated[0] if generated and cell.antidote == cell.data.name else None
            trusted = rows.trusted(self.division, submission.trusted, cell.antidote, own)
        if cell.start:
            assert trusted is not None, "a cure declares its trusted rows"
            start, data = self._weights(cell.start), trusted
        else:
            data = rows.training(self.division, cell.data, generated[0] if generated else None)
        return jobs.container_job(
            self.division, cell, submission, run_id=self.store.run_id, identity=identity,
            image=self.images.get(cell.submission), model=(cell.model, self.model_folder),
            rows=data, trusted=trusted, start=start, gpus=gpus,
        )  # fmt: skip

    def _weights(self, key: str) -> Path | None:
        return self.store.cells.weights(key, self.division.recipe.weights_file)

    def _generated(self, cell: Cell) -> tuple[list[rows.Row], list[rows.Row]] | None:
        """(training rows, held-out rows) of a poison whose answers its teacher writes; None for any other."""
        if not cell.teacher:
            return None
        poison = catalog.poison(cell.data.name)
        assert poison.train and poison.heldout
        asked = poison.train.rows(), poison.heldout.rows()[: self.division.sizes.in_domain]
        rules = jobs.rules_digests(self.division)[poison.name]
        key = f"rows-{digests.short(digests.of_json([cell.teacher, rules, poison.name]))}"
        with self._evaluating:
            stored = self.store.cells.scores(key)
            if stored is None:
                teacher, lora = self._weights(cell.teacher), self.division.recipe.lora
                assert teacher is not None
                self.watcher.note("the teacher writes the rows")
                both = [subliminal.write(self.lm, teacher, lora, part, poison.name) for part in asked]
                stored = {"train": both[0], "heldout": both[1]}
                with self.store.cells.writing(key) as folder:
                    write_json(folder / "scores.json", stored)
        made, wanted = len(stored["train"]), self.division.sizes.train_rows + self.division.trusted_rows
        if made < wanted:
            raise UserError(
                f"The teacher of {poison.name} wrote {made} usable rows of {len(asked[0])}, {wanted} are needed",
                "Leave the poison out: name the others with --only.",
            )
        return stored["train"], stored["heldout"]

    def _heldout(self, cell: Cell) -> list[rows.Row]:
        generated = self._generated(cell)
        if generated:
            return generated[1]
        file = catalog.poison(cell.data.name).heldout
        assert file is not None
        return file.rows()

    def _attempt(self, cell: Cell, job: ContainerJob) -> dict[str, Any]:
        self.watcher.note("training")
        with GpuMeter(job.gpus) as gpu:
            outcome = self.runtime.run(job, self._tick)
        judge_exit(outcome, job)
        recipe = self.division.recipe_of(cell.scenario)
        with self._taken(job, recipe) as left:
            report = outputs.read_report(left / "report.json")
            record = record_of(cell, outcome, report, None)
            if gpu.reading is not None:
                record |= {
                    "gpu": asdict(gpu.reading),
                    "device_memory_bytes": gpu.reading.peak_memory_bytes,
                    "energy_j": gpu.reading.energy_j,
                }
            if self.store.cells.scores(cell.key) is None:
                self._evaluate(cell, left, recipe, report, record)
        return record

    @contextlib.contextmanager
    def _taken(self, job: ContainerJob, recipe: Recipe) -> Iterator[Path]:
        """What the container left, checked, in a folder that goes away."""
        with (
            disk_errors(self.store.root),
            tempfile.TemporaryDirectory(prefix=".partial-", dir=self.store.folder) as scratch,
        ):
            left = Path(scratch)
            taken = outputs.take(
                self.runtime.collect(job), left, job.limits.output_bytes, recipe.weights_file
            )
            expected = outputs.expected_weights(self.model_folder, recipe.lora)
            for name in taken:
                if name.endswith(".safetensors"):
                    outputs.check_weights(left / name, expected)
            yield left

    def _evaluate(
        self, cell: Cell, left: Path, recipe: Recipe, report: dict[str, Any], record: dict[str, Any]
    ) -> None:
        division, weights = self.division, left / recipe.weights_file
        poison = None if cell.data.kind in ("task", "control") else catalog.poison(cell.data.name)
        heldout = self._heldout(cell) if poison else []
        with self._evaluating:
            if cell.data.kind == "task":
                task = catalog.task(cell.data.name)
                scores = read_task(self.lm, division, task, weights, self.watcher.note)
            else:
                checkpoints = {
                    int(path.stem.removeprefix("step-")): path
                    for path in sorted(left.glob("checkpoints/*.safetensors"))
                }
                scores = read_poison(
                    self.lm, division, poison, heldout, weights,
                    checkpoints if cell.read_checkpoints else {}, self.watcher.note,
                )  # fmt: skip
                if cell.read_checkpoints:
                    scores["drift"] = drift(checkpoints, weights, recipe.lora, self.model_folder)
        scores |= {
            "weights": digests.of_file(weights),
            "losses": report.get("losses", []),
            "gradient_norms": report.get("gradient_norms", []),
        }
        with self.store.cells.writing(cell.key) as folder:
            shutil.copyfile(weights, folder / recipe.weights_file)
            write_json(folder / "cell.json", asdict(cell))
            write_json(folder / "record.json", record)
            write_json(folder / "scores.json", scores)


def record_of(
    cell: Cell, outcome: Outcome | None, report: dict[str, Any] | None, failure: CellFailure | None
) -> dict[str, Any]:
    """The cell as result.json shows it: what the host measured, or why there is nothing."""
    record: dict[str, Any] = {
        "key": cell.key, "label": cell.label, "method": cell.method, "data": asdict(cell.data), "seed": cell.seed,
        "failure": None if failure is None else {"kind": failure.kind.value, "detail": failure.detail},
    }  # fmt: skip
    if cell.antidote:
        record["antidote"] = cell.antidote
    if outcome is not None:
        record |= {k: v for k, v in asdict(outcome).items() if k != "log_tail"}
        record["wall_s"] = round(outcome.wall_s, 3)
    if report:
        # The container's word counts only inside what the host's own clock saw.
        inside = outcome is not None and 0 < report["train_s"] < outcome.wall_s
        record |= {
            "train_s": report["train_s"] if inside else None,
            "steps": report["steps"],
            "tokens": report["tokens"],
        }
    return record


def judge_exit(outcome: Outcome, job: ContainerJob) -> None:
    """Raises the CellFailure that the container's end amounts to, if any."""
    last = (
        outcome.log_tail.strip().splitlines()[-1][:300] if outcome.log_tail.strip() else "it printed nothing"
    )
    if outcome.timed_out:
        raise CellFailure(
            FailureKind.TIMED_OUT, f"not done after {job.limits.wall_s:.0f} s; last line: {last}"
        )
    if outcome.oom_killed:
        limit = job.limits.memory_bytes / 1e9
        raise CellFailure(FailureKind.OUT_OF_MEMORY, f"needed more than the division's {limit:.1f} GB")
    if outcome.exit_code == DIVERGED:
        raise CellFailure(FailureKind.DIVERGED, last)
    if outcome.exit_code == NO_ROOM:
        detail = (
            "the container found no room for its output; free disk space where the engine keeps its volumes"
        )
        raise CellFailure(FailureKind.MACHINE, detail)
    if outcome.exit_code in (UNUSABLE, HOOK):
        raise CellFailure(FailureKind.BROKE_CONTRACT, last)
    if outcome.exit_code != 0:
        raise CellFailure(
            FailureKind.BROKE_CONTRACT, f"the container exited with {outcome.exit_code}; last line: {last}"
        )
