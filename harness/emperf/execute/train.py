"""Carries out trainings: a job of a cell, tried again where the machine failed, its weights kept."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from emperf.catalog import Division, Submission
from emperf.core import digests
from emperf.core.errors import CellFailure, FailureKind
from emperf.core.files import disk_errors, write_json
from emperf.execute.attempt import Left, attempt
from emperf.execute.store import ADAPTER, ALL_WEIGHTS, RunStore
from emperf.meters.nvml import GpuMeter
from emperf.runtimes import ContainerJob, Outcome, Runtime
from emperf.training.job import TRANSPOSED, Recipe, model_type
from emperf.work import jobs, outputs, rows
from emperf.work.peft import adapter_config
from emperf.work.plan import Cell

MACHINE_TRIES = 3
Note = Callable[[str], None]


@dataclass(frozen=True)
class Trainer:
    """`submissions` and `images`: by the submission's digest; no images for the process runtime. `note`, `tick`: told
    of what is going on, and of the seconds that a container has run."""

    division: Division
    submissions: Mapping[str, Submission]
    store: RunStore
    runtime: Runtime
    model_folder: Path
    note: Note
    tick: Callable[[float], None]
    images: Mapping[str, str] = field(default_factory=dict)

    def train(self, cell: Cell, nonce: str, gpus: tuple[int, ...], written: Any) -> dict[str, Any]:
        """The training's record in this run; its weights are in the store where it has no failure.

        `written`: the rows that a teacher wrote, {train, heldout}. A machine fault is tried again, then raised as
        CellFailure: it is never scored.
        """
        for tried in range(MACHINE_TRIES):
            job = self._job(cell, jobs.job_id(nonce, cell.train, tried + int(time.time())), gpus, written)
            try:
                record = self._attempt(cell, job)
            except CellFailure as failure:
                self.store.attempt(
                    cell.train, job=job.job_id, failure=failure.kind.value, detail=failure.detail
                )
                if failure.kind is not FailureKind.MACHINE:
                    return failed(failure)
                if tried + 1 == MACHINE_TRIES:
                    raise
                self.note(f"machine fault, tried again: {failure.detail}")
            else:
                self.store.attempt(cell.train, job=job.job_id, failure=None)
                return record
            finally:
                self.runtime.cleanup(job)
        raise AssertionError("unreachable")

    def _job(self, cell: Cell, identity: str, gpus: tuple[int, ...], written: Any) -> ContainerJob:
        submission, trusted, start = self.submissions[cell.submission], None, None
        if submission.trusted:
            own = written["train"] if written and cell.antidote == cell.data.name else None
            trusted = rows.trusted(self.division, submission.trusted, cell.antidote, own)
        if cell.start:
            start = self.store.units.weights(cell.start)
            assert trusted is not None and start is not None, (
                "a cure has trusted rows, and waits for its start"
            )
            data = trusted
        else:
            data = rows.training(self.division, cell.data, written and written["train"])
        return jobs.container_job(
            self.division, cell, submission, run_id=self.store.run_id, identity=identity,
            image=self.images.get(cell.submission), model=(cell.model, self.model_folder),
            rows=data, trusted=trusted, start=start, gpus=gpus,
        )  # fmt: skip

    def _attempt(self, cell: Cell, job: ContainerJob) -> dict[str, Any]:
        self.note("training")
        recipe = self.division.recipe_of(cell.scenario)
        expected = outputs.expected_weights(self.model_folder, recipe.lora)
        with (
            disk_errors(self.store.root),
            tempfile.TemporaryDirectory(prefix=".partial-", dir=self.store.folder) as scratch,
        ):
            with GpuMeter(job.gpus) as gpu:
                left = attempt(
                    self.runtime, job, Path(scratch), recipe.weights_file, expected, on_tick=self.tick,
                    on_end=lambda outcome: self.store.keep_log(cell.train, job.job_id, outcome.log_tail),
                )  # fmt: skip
            report = outputs.read_report(left.folder / "report.json")
            record = measured(left.outcome, report)
            if gpu.reading is not None:
                record |= {
                    "gpu": asdict(gpu.reading),
                    "device_memory_bytes": gpu.reading.peak_memory_bytes,
                    "energy_j": gpu.reading.energy_j,
                }
            if self.store.units.trained(cell.train) is None:
                self._keep(cell, recipe, left, report, record)
        return record

    def _keep(
        self, cell: Cell, recipe: Recipe, left: Left, report: dict[str, Any], record: dict[str, Any]
    ) -> None:
        """The weights as PEFT lays them out, and what is known of the training."""
        name = ADAPTER if recipe.lora else ALL_WEIGHTS
        with self.store.units.writing(cell.train) as folder:
            shutil.copyfile(left.folder / recipe.weights_file, folder / name)
            if recipe.lora:
                write_json(
                    folder / "adapter_config.json",
                    adapter_config(
                        recipe.lora,
                        outputs.linear(self.model_folder),
                        transposed=model_type(self.model_folder) in TRANSPOSED,
                    ),
                )
            if cell.read_checkpoints:
                (folder / "checkpoints").mkdir()
                for file in left.files:
                    if file.startswith("checkpoints/"):
                        shutil.copyfile(left.folder / file, folder / file)
            files = {
                file.relative_to(folder).as_posix(): digests.of_file(file)
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            }
            known = {name: report.get(name, []) for name in ("losses", "gradient_norms")}
            write_json(
                folder / "train.json", {"cell": asdict(cell), "files": files, "record": record, **known}
            )


def measured(outcome: Outcome, report: dict[str, Any]) -> dict[str, Any]:
    """What the host measured of a training that ended well, and the container's word beside it."""
    record: dict[str, Any] = {k: v for k, v in asdict(outcome).items() if k != "log_tail"}
    record |= {"failure": None, "wall_s": round(outcome.wall_s, 3)}
    if report:
        # The container's word counts only inside what the host's own clock saw.
        inside = 0 < report["train_s"] < outcome.wall_s
        record |= {
            "train_s": report["train_s"] if inside else None,
            "steps": report["steps"],
            "tokens": report["tokens"],
        }
    return record


def failed(failure: CellFailure) -> dict[str, Any]:
    """The record of a training that failed."""
    return {"failure": {"kind": failure.kind.value, "detail": failure.detail}}
