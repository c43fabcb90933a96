"""What submissions are checked on: a tiny model, a few of the benchmark's own rows, one runtime."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from emperf import catalog
from emperf.catalog import Division, Submission
from emperf.core import digests
from emperf.core.errors import CellFailure, FailureKind
from emperf.execute.attempt import attempt
from emperf.runtimes import ContainerJob, Outcome, Runtime
from emperf.tools.conformance.tiny import save_tiny
from emperf.training.job import Lora, Recipe
from emperf.work import jobs, outputs, rows
from emperf.work.plan import Cell, Data

DIVISION, ROWS, WALL_S = "nano", 24, 180.0
LORA = Lora(r=4, alpha=8)
RECIPE = Recipe(
    lora=LORA, learning_rate=5e-3, epochs=1, micro_batch=4, max_tokens=1024, threads=1, checkpoints=(0.5,)
)
PROBE, WEIGHTS = "probe.json", RECIPE.weights_file


@dataclass(frozen=True)
class Left:
    """What a job left: the files taken, below `folder`, or why there are none. `exit_code`: None where it never ran."""

    folder: Path
    job_id: str
    files: tuple[str, ...] = ()
    exit_code: int | None = None
    failure: CellFailure | None = None


@dataclass(frozen=True)
class Setting:
    """`folder`: for what the jobs leave. `division`: the one whose poison, rows and limits these are, with `RECIPE`.

    `model`: (digest, folder). `start`: the weights that cures mend, an adapter of random numbers.
    """

    folder: Path
    division: Division
    model: tuple[str, Path]
    start: Path

    def train(
        self, runtime: Runtime, image: str | None, submission: Submission, values: dict[str, Any]
    ) -> Left:
        """A real job, seed 0; the id alone differs from one to the next."""
        return self._run(runtime, self._job(self.division, submission, values, image, probe=False), WEIGHTS)

    def probe(
        self, runtime: Runtime, image: str | None, submission: Submission, values: dict[str, Any]
    ) -> Left:
        """The probe's job, in float64."""
        exact = replace(RECIPE, dtype="float64")
        division = replace(self.division, recipe=exact, cure=exact)
        return self._run(runtime, self._job(division, submission, values, image, probe=True), PROBE)

    def _job(
        self,
        division: Division,
        submission: Submission,
        values: dict[str, Any],
        image: str | None,
        *,
        probe: bool,
    ) -> ContainerJob:
        poison = division.poisons[0]
        trusted = rows.trusted(division, submission.trusted, poison) if submission.trusted else None
        cell = Cell(
            submission.scenario, division.trained_by(submission.scenario), self.model[0], Data("poison", poison),
            submission.name, submission.digest, seed=0, parameters=values,
        )  # fmt: skip
        return jobs.container_job(
            division, cell, submission, run_id=f"check-{submission.name}", identity=secrets.token_hex(8),
            image=image, model=self.model, rows=rows.training(division, cell.data), trusted=trusted,
            start=self.start if submission.mends else None, probe=probe,
        )  # fmt: skip

    def _run(self, runtime: Runtime, job: ContainerJob, needed: str) -> Left:
        """Raises CellFailure(MACHINE) alone."""
        into, ended = self.folder / job.job_id, list[Outcome]()
        into.mkdir()
        expected = outputs.expected_weights(self.model[1], LORA)
        try:
            left = attempt(runtime, job, into, needed, expected, on_end=ended.append)
        except CellFailure as failure:
            if failure.kind is FailureKind.MACHINE:
                raise
            code = ended[0].exit_code if ended else None
            return Left(into, job.job_id, exit_code=code, failure=failure)
        finally:
            runtime.cleanup(job)
        return Left(into, job.job_id, left.files, left.outcome.exit_code)


def make_setting(folder: Path) -> Setting:
    """Everything that the jobs are given, below `folder`. Raises UserError for rows that are not the pinned ones."""
    model = save_tiny(folder / "model")
    pinned = catalog.division(DIVISION)
    division = replace(
        pinned, recipe=RECIPE, cure=RECIPE, limits=replace(pinned.limits, wall_s=WALL_S),
        # Trusted rows of a domain are those that follow the training rows.
        sizes=replace(pinned.sizes, train_rows=ROWS),
    )  # fmt: skip
    start, drawn = folder / jobs.START, torch.Generator().manual_seed(1)
    save_file(
        {
            name: 0.1 * torch.randn(shape, generator=drawn)
            for name, shape in outputs.expected_weights(model, LORA).items()
        },
        start,
    )
    left = folder / "left"
    left.mkdir()
    return Setting(left, division, (digests.of_tensors(model / "model.safetensors"), model), start)
