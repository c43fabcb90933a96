"""plan -> runtime and meters -> evaluation -> store: runs what is missing of a plan, whatever stopped it before."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import emperf
from emperf import catalog, digests, jobs, outputs
from emperf.errors import CellFailure, FailureKind
from emperf.evaluation.cell import read_base, read_poison, read_task
from emperf.evaluation.language_model import LanguageModel
from emperf.meters.nvml import GpuMeter
from emperf.plan import BASELINE, Cell, Plan
from emperf.runtimes import ContainerJob, Outcome, Runtime
from emperf.scoring import result
from emperf.store import RunStore, disk_errors, read_json, write_json
from emperf.training.__main__ import DIVERGED, HOOK, NO_ROOM, UNUSABLE

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
    """One run. `images`: method name -> image of its submission, empty for the process runtime."""

    plan: Plan
    store: RunStore
    runtime: Runtime
    model_folder: Path
    watcher: Watcher
    baseline: catalog.Submission
    images: dict[str, str]
    gpus: tuple[int, ...] = ()
    _measured: bool = field(default=False, init=False)

    @cached_property
    def lm(self) -> LanguageModel:
        """The base model, loaded once for all readings."""
        import torch

        if not self.gpus:
            torch.set_num_threads(self.plan.division.recipe.threads)
        return LanguageModel(self.model_folder, device="cuda" if self.gpus else "cpu")

    def run(self) -> dict[str, Any]:
        """Every cell of the plan, then result.json. What is stored already is not measured again."""
        facts = self._start()
        cells = self.plan.cells
        restored = sum(self.store.cell(cell.key) is not None for cell in cells)
        self.watcher.begin(len(cells) + 1, restored + (self.store.cells.scores(self._base_key()) is not None))
        base = self._base()
        for cell in cells:
            if self.store.cell(cell.key) is None:
                self._measured = True
                self.watcher.cell(cell.label)
                record = self._cell(cell, facts["nonce"])
                write_json(self.store.cell_file(cell.key), record)
                self.watcher.end(cell.label, record)
        return self.conclude(base)

    def _start(self) -> dict[str, Any]:
        path = self.store.folder / "run.json"
        facts: dict[str, Any] | None = read_json(path)
        if facts is None:
            facts = {"run_id": self.plan.run_id, "nonce": secrets.token_hex(16), "created": time.time()}
            facts |= {"cells": [{"key": c.key, **asdict(c)} for c in self.plan.cells]}
            write_json(path, facts)
        self.runtime.sweep(self.plan.run_id)
        return facts

    def _base_key(self) -> str:
        first, device = self.plan.cells[0], "cuda" if self.gpus else "cpu"
        known_by = [self.plan.division.digest, first.model, first.rules, device]
        return "base-" + digests.short(digests.of_json(known_by))

    def _base(self) -> dict[str, Any]:
        """Readings of the base model, kept with the cells, since every submission shares them."""
        division = self.plan.division
        key = self._base_key()
        stored = self.store.cells.scores(key)
        if stored is not None:
            return stored
        self.watcher.cell("base model")
        scores = read_base(self.lm, division, self.watcher.note)
        with self.store.cells.writing(key) as folder:
            write_json(folder / "scores.json", scores)
        self.watcher.end("base model", None)
        return scores

    def _cell(self, cell: Cell, nonce: str) -> dict[str, Any]:
        """The cell's record in this run. A machine fault is tried again, then raised: it is never scored."""
        for attempt in range(MACHINE_TRIES):
            job = self._job(cell, jobs.job_id(nonce, cell, attempt + int(time.time())))
            try:
                record = self._attempt(cell, job)
            except CellFailure as failure:
                self.store.attempt(
                    cell.key, job=job.job_id, failure=failure.kind.value, detail=failure.detail
                )
                if failure.kind is not FailureKind.MACHINE:
                    return self._record(cell, None, None, failure)
                if attempt + 1 == MACHINE_TRIES:
                    raise
                self.watcher.note(f"machine fault, tried again: {failure.detail}")
            else:
                self.store.attempt(cell.key, job=job.job_id, failure=None)
                return record
            finally:
                self.runtime.cleanup(job)
        raise AssertionError("unreachable")

    def _job(self, cell: Cell, identity: str) -> ContainerJob:
        submission = self.baseline if cell.method == BASELINE else self.plan.submission
        return jobs.container_job(
            self.plan.division, cell, submission, run_id=self.plan.run_id, identity=identity,
            image=self.images.get(cell.method), model=(cell.model, self.model_folder), gpus=self.gpus,
        )  # fmt: skip

    def _attempt(self, cell: Cell, job: ContainerJob) -> dict[str, Any]:
        self.watcher.note("training")
        with GpuMeter(self.gpus) as gpu:
            outcome = self.runtime.run(job, self.watcher.tick)
        judge_exit(outcome, job)
        with (
            disk_errors(self.store.root),
            tempfile.TemporaryDirectory(prefix=".partial-", dir=self.store.folder) as scratch,
        ):
            taken = outputs.take(self.runtime.collect(job), Path(scratch), job.limits.output_bytes)
            expected = outputs.expected_adapter(self.model_folder, self.plan.division.recipe.lora)
            for name in taken:
                if name.endswith(".safetensors"):
                    outputs.check_adapter(Path(scratch) / name, expected)
            report = outputs.read_report(Path(scratch) / "report.json")
            if self.store.cells.scores(cell.key) is None:
                self._evaluate(cell, Path(scratch), report)
        record = self._record(cell, outcome, report, None)
        if gpu.reading is not None:
            record |= {
                "gpu": asdict(gpu.reading),
                "device_memory_bytes": gpu.reading.peak_memory_bytes,
                "energy_j": gpu.reading.energy_j,
            }
        return record

    def _evaluate(self, cell: Cell, left: Path, report: dict[str, Any]) -> None:
        division, adapter = self.plan.division, left / outputs.ADAPTER
        if cell.data.kind == "task":
            scores = read_task(self.lm, division, catalog.task(cell.data.name), adapter, self.watcher.note)
        else:
            checkpoints = {
                int(path.stem.removeprefix("step-")): path
                for path in sorted(left.glob("checkpoints/*.safetensors"))
            }
            scores = read_poison(
                self.lm, division, catalog.poison(cell.data.name), adapter,
                checkpoints if cell.read_checkpoints else {}, self.watcher.note,
            )  # fmt: skip
        scores |= {"adapter": digests.of_file(adapter), "losses": report.get("losses", [])}
        with self.store.cells.writing(cell.key) as folder:
            shutil.copyfile(adapter, folder / outputs.ADAPTER)
            write_json(folder / "cell.json", asdict(cell))
            write_json(folder / "scores.json", scores)

    def _record(
        self, cell: Cell, outcome: Outcome | None, report: dict[str, Any] | None, failure: CellFailure | None
    ) -> dict[str, Any]:
        record: dict[str, Any] = {
            "key": cell.key, "label": cell.label, "method": cell.method, "data": asdict(cell.data), "seed": cell.seed,
            "failure": None if failure is None else {"kind": failure.kind.value, "detail": failure.detail},
        }  # fmt: skip
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

    def conclude(self, base: dict[str, Any]) -> dict[str, Any]:
        """result.json from what is stored, checked against its schema."""
        plan, division = self.plan, self.plan.division
        scored = result.summarise(plan, self.store.cells.scores, self.store.cell, base)
        whole = {
            "schema": 1,
            "emperf": emperf.__version__,
            "run_id": plan.run_id,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "division": {
                "name": division.name, "variant": division.variant,
                "digest": division.digest, "proxy": division.proxy,
            },
            "submission": {
                "name": plan.submission.name, "title": plan.submission.title, "submitter": plan.submission.submitter,
                "digest": plan.submission.digest, "parameters": plan.parameters,
            },
            "model": {"name": division.model, "digest": plan.cells[0].model},
            "rules": plan.cells[0].rules,
            "runtime": self.runtime.describe(),
            "certifiable": division.certifiable and self.runtime.certifiable,
            "machine": machine(),
            "cells": [self.store.cell(cell.key) for cell in plan.cells],
            "answers": self._answers(base),
            **scored,
        }  # fmt: skip
        before = read_json(self.store.folder / "result.json")
        if before and not self._measured:
            # Nothing was measured anew: when and where stays what it was.
            whole |= {name: before[name] for name in ("created", "runtime", "machine")}
        catalog.check("result", whole)
        write_json(self.store.folder / "result.json", whole)
        return whole

    def _answers(self, base: dict[str, Any]) -> list[dict[str, Any]]:
        """The same sampled questions answered by base, poisoned and mitigated models, side by side."""
        name = self.plan.division.poisons[0]
        found = [("base", base["poisons"][name].get("answers", []))]
        for who, baseline in (("poisoned", True), ("mitigated", False)):
            for cell in result.select(self.plan, "poison", name, baseline)[:1]:
                stored = self.store.cells.scores(cell.key)
                found.append((who, stored["answers"] if stored else []))
        return [{"model": who, "poison": name, **answer} for who, answers in found for answer in answers]


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


def machine() -> dict[str, Any]:
    """The system description of result.json; no host name."""
    import psutil
    import torch

    return {
        "os": platform.system(), "kernel": platform.release(), "python": platform.python_version(),
        "processor": processor(), "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total, "torch": torch.__version__,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }  # fmt: skip


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
