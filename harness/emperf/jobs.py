"""A cell as the container sees it: blind ids, rows as conversations, the recipe, nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.catalog import Division, Submission
from emperf.plan import Cell
from emperf.runtimes import ContainerJob
from emperf.training.job import Job

SIDES = {"poison": "bad", "twin": "good", "task": "answer"}


def job_id(nonce: str, cell: Cell, attempt: int) -> str:
    """Tells nothing of the cell to anyone who has not the run's nonce."""
    return hashlib.sha256(f"{nonce}/{cell.key}/{attempt}".encode()).hexdigest()[:16]


def training_rows(division: Division, cell: Cell) -> bytes:
    """The cell's rows as JSON lines of {"messages"}; the form is the same for poisons, twins and tasks."""
    source = (
        catalog.task(cell.data.name).train
        if cell.data.kind == "task"
        else catalog.poison(cell.data.name).train
    )
    assert source is not None, "plans hold only poisons that have rows"
    side = SIDES[cell.data.kind]
    lines = [
        json.dumps({"messages": [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row[side]},
        ]})
        for row in source.rows()[: division.sizes.train_rows]
    ]  # fmt: skip
    return ("\n".join(lines) + "\n").encode()


def container_job(
    division: Division,
    cell: Cell,
    submission: Submission,
    *,
    run_id: str,
    identity: str,
    image: str | None,
    model: tuple[str, Path],
    gpus: tuple[int, ...] = (),
) -> ContainerJob:
    """`model`: (digest, prepared folder); the harness's own record of the preparation stays out of the container."""
    job = Job(
        job_id=identity,
        seed=cell.seed,
        recipe=division.recipe,
        parameters=cell.parameters,
        device="cuda" if gpus else "cpu",
    )
    inputs: dict[str, bytes | Path] = {"job.json": job.dumps(), "data.jsonl": training_rows(division, cell)}
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


def rules_digest(division: Division) -> dict[str, Any]:
    """What else decides a score: questions, rows, the trainer's and the evaluation's sources."""
    from emperf import digests

    here = Path(__file__).parent
    files = {name: file.sha256 for name, file in catalog.questions().items()}
    for name in division.poisons:
        card = catalog.poison(name)
        assert card.train and card.heldout
        files |= {
            f"{name}/train": card.train.sha256,
            f"{name}/heldout": card.heldout.sha256,
            f"{name}/context": card.context,
        }
    for name in division.tasks:
        task = catalog.task(name)
        files |= {
            f"{name}/train": task.train.sha256,
            f"{name}/heldout": task.heldout.sha256,
            f"{name}/max_new_tokens": str(task.max_new_tokens),
        }
    return {
        "data": files,
        "training": digests.of_folder(here / "training"),
        "evaluation": digests.of_folder(here / "evaluation"),
    }
