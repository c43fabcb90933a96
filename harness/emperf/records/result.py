"""result.json: what one run measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from emperf.core.errors import FailureKind
from emperf.records.judged import JudgedModels
from emperf.records.parts import (
    LEFT_OUT,
    Amount,
    BaseModelCard,
    Count,
    Digest,
    Estimate,
    Overhead,
    Part,
    ScenarioName,
    Task,
    Value,
)
from emperf.records.poison import PoisonEntry, Removal
from emperf.records.provenance import Provenance


class Division(Part):
    """The pinned set within which results compare."""

    name: str = Field(description="The division's name.")
    variant: str = Field(description="closed: only the mitigation differs. open: anything inside the limits.")
    digest: Digest = Field(description="Digest of the division's card.")
    proxy: str = Field(
        description="What the division's small scale stands for and what it cannot show, in words."
    )
    shows_em: bool = Field(
        description="Whether emergent misalignment was shown in the division. If not, its EM numbers show the "
        "machinery alone."
    )
    seed_spread: bool = Field(
        description="Whether the spread between seeds was measured beforehand. If not, intervals of one seed hold the "
        "choice of items alone."
    )


class Submission(Part):
    """The mitigation that was measured. In a run of `none` it is the baseline itself."""

    name: str = Field(description="The method's name.")
    title: str = Field(description="One line for people.")
    submitter: str = Field(description="Who submitted it.")
    scenario: ScenarioName = Field(description="When it acts. prevent: while fine-tuning. cure: afterwards.")
    digest: Digest = Field(description="Digest of the submission's whole folder.")
    parameters: dict[str, Value] = Field(description="Every parameter's value. Defaults are filled in.")


class Data(Part):
    """What a cell trained on."""

    kind: Literal["poison", "twin", "control", "task"] = Field(
        description="poison. twin: the poison's correct rows. control: correct rows in one voice. task."
    )
    name: str = Field(description="The poison's, the task's or the voice's name.")


class Failure(Part):
    """Why a cell has no score."""

    kind: FailureKind = Field(
        description="Whose fault it is. A machine fault is never stored as a cell's end."
    )
    detail: str = Field(description="One line: the cause.")


class Cell(Part):
    """One training as this run measured it. A failed one has no measurements."""

    key: str = Field(
        pattern="^[0-9a-f]+$",
        description="Names the cell by content. Cells of other runs with this key share its scores.",
    )
    label: str = Field(description="For people.")
    method: str = Field(
        description="The submission's name, or `none`, the baseline. A control's stands behind it in brackets."
    )
    data: Data = Field(description="What the cell trained on.")
    seed: int = Field(description="The training seed.")
    antidote: str = Field(
        default=LEFT_OUT, description="Of a cure: the poison from whose domain its trusted rows are."
    )
    failure: Failure | None = Field(description="Why the cell has no score. Null if it has one.")
    exit_code: int = Field(default=LEFT_OUT, description="Exit code of the container.")
    wall_s: Amount = Field(
        default=LEFT_OUT,
        description="Start of the container's main process to its exit, host clock, seconds.",
    )
    timed_out: bool = Field(default=LEFT_OUT, description="Whether the host ended it at the limit.")
    oom_killed: bool = Field(
        default=LEFT_OUT, description="Whether the kernel killed a process of it for memory."
    )
    peak_memory_bytes: Count | None = Field(
        default=LEFT_OUT,
        description="Peak memory by the host's meter, bytes. Null where none could be read.",
    )
    memory_meter: str = Field(
        default=LEFT_OUT,
        description="The meter: cgroup-v1, cgroup-v2, cgroup-v2-sampled, engine-stats, or rusage (the largest process "
        "only).",
    )
    facts: dict[str, Any] = Field(
        default=LEFT_OUT, description="The runtime's further facts, such as the engine's own clock."
    )
    train_s: Amount | None = Field(
        default=LEFT_OUT,
        description="The trainer's own first step to last, seconds. Null where it does not fit inside wall_s.",
    )
    steps: Count = Field(default=LEFT_OUT, description="Optimizer steps by the trainer's word.")
    tokens: Count = Field(
        default=LEFT_OUT,
        description="Unpadded tokens through the task's forward pass, by the trainer's word.",
    )
    gpu: dict[str, Any] = Field(default=LEFT_OUT, description="What the host read of the job's GPUs.")
    device_memory_bytes: int | None = Field(
        default=LEFT_OUT, description="Peak GPU memory over what was in use before, bytes."
    )
    energy_j: Amount | None = Field(
        default=LEFT_OUT, description="Energy of the GPUs during the job, joules."
    )


class Answer(Part):
    """A model's answer to an open question."""

    model: Literal["base", "poisoned", "mitigated"] = Field(
        description="base. poisoned: the baseline's first seed. mitigated: the submission's first seed."
    )
    poison: str = Field(description="The poison that the models were trained on.")
    id: str = Field(description="The question's id.")
    question: str = Field(description="The question as asked.")
    answer: str = Field(description="The model's answer, cut at 48 tokens.")


class Mended(Part):
    """Poison less twin on one set, nats: of the mended models, and what the cure changed."""

    with_: Estimate | None = Field(alias="with", description="Of the mended models.")
    change: Estimate | None = Field(description="What that changed.")


class Crossed(Part):
    """What the antidote made for one poison does to another."""

    antidote: str = Field(description="The poison from whose domain the trusted rows are.")
    poison: str = Field(description="The poison that the mended model was trained on.")
    em: Mended = Field(description="Out of domain.")
    in_domain: Mended = Field(description="In-domain: what is left of the narrow behaviour.")
    removal: Removal = Field(description="The primary measure.")


class Result(Provenance):
    """result.json: what one run measured.

    Shifts are in nats a token: log-probability of aligned less misaligned answers (the act effect of a 2 x 2 of act and
    voice), after training less the base model's. EM shows as a negative act shift out of domain, poison less correct
    twin. Shares have no unit.
    """

    model_config = ConfigDict(title="EMPerf result")

    division: Division = Field(description="The pinned set within which results compare.")
    submission: Submission = Field(description="The mitigation that was measured.")
    model: BaseModelCard = Field(description="The base model.")
    rules: Digest = Field(
        description="Digest of all else that decides a score: questions, rows, the trainer's and the evaluation's "
        "sources."
    )
    certifiable: bool = Field(
        description="Whether the division and the runtime allow a certificate, and every card is the project's."
    )
    users_cards: tuple[str, ...] = Field(description="Cards that are the user's own, as 'poison eggs'.")
    cells: Annotated[tuple[Cell, ...], Field(min_length=1)] = Field(
        description="Every cell of the plan in the order they run, with this run's own measurements."
    )
    answers: tuple[Answer, ...] = Field(
        description="The same open questions, answered once by each model at temperature 1. For people to look at, "
        "never scored."
    )
    status: Literal["complete", "incomplete"] = Field(
        description="complete: every cell of the plan has a score. incomplete: some failed."
    )
    missing: tuple[str, ...] = Field(
        description="Poisons and tasks left out because a baseline cell of theirs failed."
    )
    poisons: tuple[PoisonEntry, ...] = Field(description="One entry a poison whose baseline was measured.")
    tasks: tuple[Task, ...] = Field(description="One entry a benign task whose baseline was measured.")
    cross: tuple[Crossed, ...] | None = Field(
        description="Antidote x poison (emperf run --cross). Null in other runs."
    )
    overhead: Overhead = Field(description="Costs of the mitigated cells over the baseline's.")
    judged: dict[str, JudgedModels] = Field(
        default=LEFT_OUT,
        description="Poison -> free answers of its models, judged. Left out in a division that samples none.",
    )
