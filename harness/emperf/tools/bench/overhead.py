"""What the harness adds to a training run: the bare trainer, and the same job as a cell has it, in turn.

Bare: the trainer's process from its start to its exit, its inputs placed beforehand. Harness: placing the inputs, the
sandbox, the limits and meters, the run, and then collecting, checking and storing what it left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emperf import catalog
from emperf.core import paths
from emperf.core.errors import UserError
from emperf.core.files import write_json
from emperf.core.limits import Limits
from emperf.core.sources import PACKAGE
from emperf.execute.attempt import attempt
from emperf.execute.store import UnitStore
from emperf.runtimes import ContainerJob
from emperf.runtimes.images import ENV
from emperf.runtimes.process import ProcessRuntime
from emperf.tools.bench.training import rows
from emperf.tools.bench.turns import free_port
from emperf.training.job import Job, Recipe
from emperf.work import outputs
from emperf.work.plan import BASELINE


@dataclass(frozen=True)
class Pair:
    """Seconds. `around`: what of `harness_s` lies outside the program's own start and exit."""

    bare_s: float
    harness_s: float
    around_s: float


@dataclass(frozen=True)
class Task:
    """The job that both do."""

    model: Path
    digest: str
    recipe: Recipe
    limits: Limits
    submission: Path
    data: bytes

    def job(self, name: str) -> Job:
        return Job(job_id=name, seed=0, recipe=self.recipe)


def measure(
    model: Path, recipe: Recipe, limits: Limits, *, row_count: int, pairs: int, said: Callable[[Pair], None]
) -> list[Pair]:
    lines = [
        json.dumps({"messages": [
            {"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]},
        ]})
        for row in rows(row_count)
    ]  # fmt: skip
    task = Task(
        model, "sha256:bench", recipe, limits,
        catalog.submission(Path(BASELINE)).folder, ("\n".join(lines) + "\n").encode(),
    )  # fmt: skip
    found = []
    for number in range(pairs):
        with tempfile.TemporaryDirectory(prefix="emperf-bench-") as scratch:
            # Who goes first changes from pair to pair.
            if number % 2:
                harness_s, around_s = by_harness(task, Path(scratch))
                bare_s = bare(task, Path(scratch))
            else:
                bare_s = bare(task, Path(scratch))
                harness_s, around_s = by_harness(task, Path(scratch))
        found.append(Pair(bare_s, harness_s, around_s))
        said(found[-1])
    return found


def bare(task: Task, scratch: Path) -> float:
    """Seconds of the trainer alone. Raises UserError if it fails."""
    inputs, out = scratch / "in", scratch / "out"
    inputs.mkdir()
    out.mkdir()
    (inputs / "model").symlink_to(task.model.absolute())
    (inputs / "job.json").write_bytes(task.job("bare").dumps())
    (inputs / "data.jsonl").write_bytes(task.data)
    command = [sys.executable, "-m", "emperf.training", "--in", str(inputs), "--out", str(out)]
    environment = {
        **ENV, "PYTHONPATH": str(PACKAGE.parent), "CUDA_VISIBLE_DEVICES": "", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--submission", str(task.submission.absolute())],
        capture_output=True, text=True, env=environment, cwd=out, check=False,
    )  # fmt: skip
    seconds = time.monotonic() - started
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1][:300]
        raise UserError(
            f"The trainer ended with exit code {done.returncode}: {said}", "Mend that, then bench again."
        )
    return seconds


def by_harness(task: Task, scratch: Path) -> tuple[float, float]:
    """Seconds of the whole cell without its evaluation, and of them those around the program's own."""
    name = os.urandom(8).hex()
    runtime = ProcessRuntime(scratch / "work", hide=[paths.project_folder("benchmark"), scratch / "store"])
    store = UnitStore(scratch / "store")
    started = time.monotonic()
    job = ContainerJob(
        job_id=name, run_id="bench", image=None, submission=task.submission, limits=task.limits,
        inputs={"job.json": task.job(name).dumps(), "data.jsonl": task.data},
        shared={"model": (task.digest, task.model)},
    )  # fmt: skip
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as into:
            weights = task.recipe.weights_file
            expected = outputs.expected_weights(task.model, task.recipe.lora)
            left = attempt(runtime, job, Path(into), weights, expected)
            outcome, report = left.outcome, outputs.read_report(left.folder / "report.json")
            with store.writing(name) as folder:
                shutil.copyfile(left.folder / weights, folder / weights)
                write_json(folder / "train.json", report)
    finally:
        runtime.cleanup(job)
    seconds = time.monotonic() - started
    return seconds, seconds - outcome.wall_s
