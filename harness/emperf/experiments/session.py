"""What a command needs to start a run: division, submission, model, runtime and images, put together and said aloud."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.catalog import Division, Submission, datasets
from emperf.core import digests, paths, sources
from emperf.core.errors import UserError
from emperf.runtimes import Runtime, gpus, trainer
from emperf.work import rows
from emperf.work.plan import BASELINE, Data, Ground, Plan, make_plan


@dataclass(frozen=True)
class Choice:
    """The runtime taken, the images by submission digest (none for `process`), and why, in a line.

    `content`: what trains, beside the submission: the base image's content, or the libraries and what isolation lacks.
    """

    runtime: Runtime
    images: dict[str, str]
    why: str
    content: str

    def place(self, gpus: tuple[int, ...]) -> str:
        """Where its cells are trained, as their keys have it."""
        return f"{self.runtime.name}, {self.content}, {'cuda' if gpus else 'cpu'}"


def gpus_of(division: Division) -> tuple[int, ...]:
    """The machine's GPUs for a division that is run on them; none for one of the CPU.

    Raises UserError where a division wants GPUs and the machine has none.
    """
    if division.device == "cpu":
        return ()
    found = gpus.visible()
    if not found:
        raise UserError(
            f"{division.name} is run on GPUs, and torch sees none here",
            "Choose a division of the CPU (emperf list divisions), or a machine with a GPU.",
        )
    return found


def plan_run(
    division: Division, folder: Path, given: dict[str, Any], place: str = "", *, cross: bool = False
) -> tuple[Plan, Submission]:
    """(plan, baseline). Everything a user can get wrong is checked here, before anything runs.

    `cross`: as of `make_plan`.
    """
    submission, baseline = catalog.submission(folder), catalog.submission(Path(BASELINE))
    check_name(submission, baseline)
    check_trusted(division, submission)
    check_family(division, submission)
    division.recipe_of(submission.scenario)
    if cross and not submission.crosses:
        raise UserError(
            f"{submission.name} uses no rows of a poison's domain, so there is nothing to cross",
            "Leave --cross out, or take an antidote (emperf list mitigations).",
        )
    submission.values(given)
    rows.check(division, submission.trusted)
    return make_plan(division, submission, baseline, given, ground_of(division, place), cross=cross), baseline


def ground_of(division: Division, place: str) -> Ground:
    """Raises UserError where a card or its rows are missing or malformed."""
    poisons = {name: catalog.poison(name) for name in division.poisons}
    teachers = {name: poison.teacher for name, poison in poisons.items() if poison.teacher}
    sides = {name: catalog.dataset("poison", name).sides for name in (*poisons, *teachers.values())}
    data = [Data(kind, name) for name, kinds in sides.items() for kind in kinds]
    data += [Data("task", name) for name in division.tasks]
    data += [Data("control", name) for name in division.controls]
    return Ground(
        model_digest=catalog.model(division.model).identity,
        twins={name: datasets.TWIN in sides[name] for name in poisons},
        rows={one: rows_digest(division, one) for one in data},
        place=place,
        trusted=partial(trusted_digest, division),
        teachers=teachers,
        domains={name: poison.domain for name, poison in poisons.items() if poison.domain != name},
        on_tasks=mending_domains(catalog.division(division.name)),
    )


def rows_digest(division: Division, data: Data) -> str:
    """Of a cell's training rows, as they are delivered; where a teacher writes them, of what it is asked."""
    found = catalog.dataset(data.kind, data.name)
    if not isinstance(found, datasets.FromTeacher):
        return digests.of_bytes(rows.training(division, data))
    writer = sources.digest("emperf.evaluation.subliminal")
    return digests.of_json([data.kind, found.identity, division.sizes.train_rows, writer])


def trusted_digest(division: Division, asked: Mapping[str, int], antidote: str) -> str:
    """Of the trusted rows as they are delivered; where a teacher writes them, of what it is asked."""
    poison = catalog.poison(antidote) if antidote else None
    if poison is None or not poison.teacher:
        return digests.of_bytes(rows.trusted(division, asked, antidote))
    words = poison.antidotes and asdict(poison.antidotes)
    return digests.of_json(
        [dict(asked), rows_digest(division, Data("poison", antidote)), words, catalog.trusted().sha256]
    )


def mending_domains(division: Division) -> dict[tuple[str, int], str]:
    """(task, seed) -> the poison whose domain's trusted rows a cure is granted there. A task has no domain of its own;
    all domains in turn, or else every other one would tell of a poison."""
    cards = map(catalog.poison, division.poisons)
    domains = list(dict.fromkeys(card.rows_of or card.name for card in cards))
    cells = itertools.product(division.seeds, division.tasks)
    return {(task, seed): domains[place % len(domains)] for place, (seed, task) in enumerate(cells)}


def check_name(submission: Submission, baseline: Submission) -> None:
    """Raises UserError for another submission under the baseline's name."""
    if submission.name == BASELINE and submission.digest != baseline.digest:
        raise UserError(
            f"{submission.folder} is named {BASELINE!r}, which is the baseline's name", "Choose another name."
        )


def check_trusted(division: Division, submission: Submission) -> None:
    """Raises UserError where a submission asks for more trusted rows than the division grants, or a cure for none."""
    asked = sum(submission.trusted.values())
    if asked > division.trusted_rows:
        raise UserError(
            f"{submission.name} asks for {asked} trusted rows, {division.name} grants {division.trusted_rows}",
            "Lower trusted in submission.yaml, or choose another division.",
        )
    if submission.mends and not asked:
        raise UserError(
            f"{submission.name} is a cure and asks for no trusted rows",
            "Say in submission.yaml which it mends with: trusted: {correct: 48}.",
        )


def check_family(division: Division, submission: Submission) -> None:
    """Raises UserError where the division's model is of a family that the submission cannot handle."""
    model = catalog.model(division.model)
    if submission.families and model.family not in submission.families:
        raise UserError(
            f"{submission.name} handles models of {', '.join(submission.families)}, and {division.name}'s "
            f"{model.name} is of {model.family}",
            "Choose another division; if it does handle them, say so in its submission.yaml.",
        )


def choose_runtime(wanted: str, store: Path, submissions: Sequence[Submission]) -> Choice:
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
                images = {s.digest: image_of(s) for s in submissions}
                return Choice(DockerRuntime(), images, f"a Docker engine answers (version {why})", base)
            except UserError as error:
                why_not = str(error)
        else:
            why_not = f"{why.rstrip('.')}."
        if wanted == "docker":
            raise UserError(why_not.rstrip("."), "Or run with --runtime process, for development.")
    for submission in submissions:
        if submission.image:
            raise UserError(
                f"{submission.name} is a container image, and the process runtime cannot run one",
                "Start a Docker engine.",
            )
    from emperf.runtimes.process import ProcessRuntime

    hide = [paths.project_folder("benchmark"), store.resolve()]
    reason = why_not or "asked for with --runtime process."
    runtime = ProcessRuntime(store / "work", hide=hide)
    missing = ", ".join(runtime.describe()["missing"]) or "nothing"
    why = f"{reason} Results are for development, never certifiable."
    return Choice(
        runtime, {}, why, f"missing: {missing}; {libraries()}; trainer {digests.short(trainer.digest())}"
    )


def libraries() -> str:
    """The versions of what trains: an image holds them, the process runtime takes this Python's."""
    return ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "deepspeed", "trl")
    )


def image_of(submission: Submission) -> str:
    """The id of the submission's image: its own, or its folder on top of the submission base image."""
    from emperf.runtimes.images import base_image_tag, build_submission_image, resolve_image

    if submission.image:
        return resolve_image(submission.image)
    return build_submission_image(base_image_tag(), submission.folder)
