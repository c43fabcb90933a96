"""What a command needs to start a run: division, submission, model, runtime and images, put together and said aloud."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emperf import catalog, digests, jobs, paths
from emperf.catalog import Division, Submission
from emperf.errors import UserError
from emperf.plan import BASELINE, Plan, make_plan
from emperf.prepare import prepared
from emperf.runtimes import Runtime


@dataclass(frozen=True)
class Choice:
    """The runtime taken, the images by method name (none for `process`), and why, in a line.

    `made_of`: what else, beside the submission, decides what runs: the base image's content, or what isolation lacks.
    """

    runtime: Runtime
    images: dict[str, str]
    why: str
    made_of: str

    def place(self, gpus: tuple[int, ...]) -> str:
        """Where its cells are trained and scored, as their keys have it."""
        return f"{self.runtime.name}, {self.made_of}, {'cuda' if gpus else 'cpu'}"


def gpu_indices() -> tuple[int, ...]:
    import torch

    return tuple(range(torch.cuda.device_count()))


def plan_run(
    division_name: str, folder: Path, given: dict[str, Any], place: str = ""
) -> tuple[Plan, Path, Submission]:
    """(plan, prepared model, baseline). Everything a user can get wrong is checked here, before anything runs."""
    division = catalog.division(division_name)
    submission, baseline = catalog.submission(folder), catalog.submission(Path(BASELINE))
    if submission.name == BASELINE and submission.digest != baseline.digest:
        raise UserError(
            f"{folder} is named {BASELINE!r}, which is the baseline's name", "Choose another name."
        )
    if submission.trusted_rows > division.trusted_rows:
        raise UserError(
            f"{submission.name} asks for {submission.trusted_rows} trusted rows, "
            f"{division.name} grants {division.trusted_rows}",
            "Lower trusted_rows in submission.yaml, or choose another division.",
        )
    submission.values(given)
    twins = {name: catalog.poison(name).twin for name in division.poisons}
    model = catalog.model(division.model)
    for name in division.poisons:
        if catalog.poison(name).train is None:
            raise UserError(f"Poison {name} has no rows of the project's own", "Choose another division.")
    rules = digests.of_json(jobs.rules_digest(division))
    folder_of_model = prepared(model)
    check_rows(division)
    plan = make_plan(
        division, submission, baseline, given,
        model_digest=model.digest, twins=twins, rules=rules, place=place,
    )  # fmt: skip
    return plan, folder_of_model, baseline


def check_rows(division: Division) -> None:
    """Every pinned file is read once, so that an altered one stops the run before its first cell."""
    for file in catalog.questions().values():
        file.rows()
    for name in division.poisons:
        card = catalog.poison(name)
        for rows in (card.train, card.heldout):
            if rows:
                rows.rows()
    for name in division.tasks:
        task = catalog.task(name)
        task.train.rows(), task.heldout.rows()


def choose_runtime(wanted: str, store: Path, submission: Submission, baseline: Submission) -> Choice:
    """`auto` takes docker where an engine answers and the base image is there, else process; says which and why.

    Raises UserError where docker is asked for by name and cannot be had, or where a submission is an image alone.
    """
    from emperf.runtimes.docker import DockerRuntime, engine_answers
    from emperf.runtimes.images import base_image_tag, content_of

    why_not = ""
    if wanted in ("auto", "docker"):
        answers, why = engine_answers()
        if answers:
            try:
                base = content_of(base_image_tag())
                images = {s.name: image_of(s) for s in (baseline, submission)}
                return Choice(DockerRuntime(), images, f"a Docker engine answers (version {why})", base)
            except UserError as error:
                why_not = str(error)
        else:
            why_not = f"{why.rstrip('.')}."
        if wanted == "docker":
            raise UserError(why_not.rstrip("."), "Or run with --runtime process, for development.")
    if submission.image:
        raise UserError(
            f"{submission.name} is a container image, and the process runtime cannot run one",
            "Start a Docker engine.",
        )
    from emperf.runtimes.process import ProcessRuntime

    hide = [paths.project_folder("benchmark"), store.resolve()]
    reason = why_not or "asked for with --runtime process"
    runtime = ProcessRuntime(store / "work", hide=hide)
    missing = ", ".join(runtime.describe()["missing"]) or "nothing"
    why = f"{reason} Results are for development, never certifiable."
    return Choice(runtime, {}, why, f"missing: {missing}")


def image_of(submission: Submission) -> str:
    """The submission's image: its own by digest, or its folder on top of the submission base image."""
    if submission.image:
        return submission.image
    from emperf.runtimes.images import base_image_tag, build_submission_image

    return build_submission_image(base_image_tag(), submission.folder)
