"""A cell as the container sees it: blind ids, rows as conversations, the recipe, nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import emperf
from emperf import catalog
from emperf.catalog import Division, Submission, upstream
from emperf.core import digests
from emperf.runtimes import ContainerJob
from emperf.training.job import Job
from emperf.work.plan import Cell
from emperf.work.rows import VOICES

START = "start.safetensors"


def job_id(nonce: str, cell: Cell, attempt: int) -> str:
    """Tells nothing of the cell to anyone who has not the run's nonce."""
    return hashlib.sha256(f"{nonce}/{cell.key}/{attempt}".encode()).hexdigest()[:16]


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


def rules_digests(division: Division) -> dict[str, str]:
    """Dataset -> digest of what else decides its scores: questions, rows, sources of trainer and evaluation.

    Also of the poisons that a part of a division leaves out, and of those whose rows or models others use.
    """
    here = Path(emperf.__file__).parent
    files = {name: file.sha256 for name, file in catalog.questions().items() if name != "audit"}
    common = {
        "questions": files,
        "trusted": catalog.trusted().sha256,
        "rows": [digests.of_file(here / name) for name in ("work/rows.py", "evaluation/subliminal.py")],
        "training": digests.of_folder(here / "training"),
        "evaluation": digests.of_folder(here / "evaluation"),
    }
    own: dict[str, list[Any]] = {}
    # Tasks are not asked the second instrument's items.
    second = upstream.digest()
    whole = catalog.division(division.name)
    named = [catalog.poison(name) for name in (*division.poisons, *whole.poisons)]
    used = {name for card in named for name in (card.name, card.rows_of, card.teacher) if name}
    for name in sorted(used):
        card = catalog.poison(name)
        assert card.train and card.heldout
        words = [card.context, card.trigger, card.teacher, card.antidotes and asdict(card.antidotes)]
        own[name] = [card.train.sha256, card.heldout.sha256, *words, second]
    for name in division.tasks:
        task = catalog.task(name)
        own[name] = [task.train.sha256, task.heldout.sha256, task.max_new_tokens]
    for name in division.controls:
        source = catalog.voices() if name in VOICES else catalog.task(name).train
        own[f"control {name}"] = [source.sha256, name, second]
    return {name: digests.of_json(common | {"own": parts}) for name, parts in own.items()}
