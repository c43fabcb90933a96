"""A cell as the container sees it: blind ids, rows as conversations, the recipe, nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from emperf.catalog import Division, Submission
from emperf.runtimes import ContainerJob
from emperf.training.job import Job
from emperf.work.plan import Cell

START = "start.safetensors"


def job_id(nonce: str, train: str, attempt: int) -> str:
    """Tells nothing of the cell to anyone who has not the run's nonce."""
    return hashlib.sha256(f"{nonce}/{train}/{attempt}".encode()).hexdigest()[:16]


def container_job(
    division: Division,
    cell: Cell,
    submission: Submission,
    *,
    run_id: str,
    identity: str,
    image: str | None,
    model: tuple[str, Path],
    rows: bytes,
    trusted: bytes | None = None,
    start: Path | None = None,
    probe: bool = False,
    gpus: tuple[int, ...] = (),
) -> ContainerJob:
    """`model`: (digest, prepared folder); the harness's own record of the preparation stays out of the container.

    `rows`, `trusted`: JSON lines. `start`: the weights to mend; the data are then the trusted rows.
    `probe`: as of `Job`.
    """
    job = Job(
        job_id=identity,
        seed=cell.seed,
        recipe=division.recipe_of(cell.scenario),
        parameters=cell.parameters,
        data="trusted.jsonl" if start else "data.jsonl",
        trusted="trusted.jsonl" if trusted else None,
        start=START if start else None,
        probe=probe,
        device="cuda" if gpus else "cpu",
    )
    inputs: dict[str, bytes | Path] = {"job.json": job.dumps(), job.data: rows}
    if trusted:
        inputs["trusted.jsonl"] = trusted
    if start:
        inputs[START] = start
    return ContainerJob(
        job_id=identity,
        run_id=run_id,
        image=image,
        submission=submission.folder,
        limits=division.limits,
        inputs=inputs,
        shared={"model": model},
        gpus=gpus,
    )
