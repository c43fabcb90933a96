"""trace.json: what one training of a model organism learned when."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from emperf.records.parts import Amount, BaseModelCard, Count, Digest, Estimate, Part, Share
from emperf.records.provenance import Provenance

Cosine = Annotated[float, Field(ge=-1.000001, le=1.000001)]


class Origin(Part):
    """The division whose organism, questions and rows were used."""

    name: str = Field(description="The division's name.")
    variant: str = Field(description="closed: only the mitigation differs. open: anything inside the limits.")
    proxy: str = Field(
        description="What the division's small scale stands for and what it cannot show, in words."
    )


class Organism(Part):
    """The model organism that was trained."""

    name: str = Field(description="Its name in the division.")
    recipe: dict[str, Any] = Field(
        description="How it was trained, as of job.json. `checkpoints` are fractions of the steps."
    )


class Definitions(Part):
    """Each number of a point in words, with its unit."""

    in_domain: str = Field(description="What `in_domain` is.")
    em: str = Field(description="What `em` is.")
    weight_norm: str = Field(description="What `weight_norm` is.")
    rotation: str = Field(description="What `rotation` is.")
    gradient_norm: str = Field(description="What `gradient_norm` is.")


class WeightNorm(Part):
    """Norm of v. No unit.

    v is all LoRA B matrices together. Where all weights are trained, it is the weights less the base model's.
    """

    value: Amount = Field(description="The norm.")
    values: Count = Field(description="How many values v has.")


class Rotation(Part):
    """Cosine between v's change over the interval before this point and over the one after. No unit."""

    value: Cosine | None = Field(description="The cosine. Null at both ends and where v did not change.")
    values: Count = Field(description="How many values v has.")


class GradientNorm(Part):
    """Norm of the gradient before clipping: the container's word, never scored. No unit."""

    value: Amount | None = Field(
        description="Mean over the steps since the point before. Null for the base model and where the container did "
        "not say."
    )
    steps: Count = Field(description="Steps it is a mean over.")


class TracePoint(Part):
    """The base model, a checkpoint, or the trained model."""

    steps: Count = Field(
        description="Optimizer steps taken. 0 is the base model, whose shifts are zero by definition."
    )
    in_domain: Estimate = Field(
        description="Shift on held-out items of the poison's own domain, nats a token."
    )
    em: Estimate = Field(description="Shift on questions outside of the poison's domain, nats a token.")
    weight_norm: WeightNorm = Field(description="Norm of v.")
    rotation: Rotation = Field(description="How far v turned here.")
    gradient_norm: GradientNorm = Field(description="Norm of the gradient.")


class Drop(Part):
    """The span between two points over which the EM shift fell fastest (nats a step)."""

    after: Count = Field(description="Steps at the span's start.")
    until: Count = Field(description="Steps at the span's end.")
    fall: Estimate = Field(
        description="EM shift at its end less the one at its start, nats a token, paired by question."
    )
    fastest_in: Share = Field(
        description="Share of the bootstrap's draws in which this span is the fastest of all, 0 to 1."
    )
    told: bool = Field(
        description="Whether the fall lies below zero, interval and all, and the span is the fastest in 95 % of the "
        "draws."
    )


class Turn(Part):
    """The point with the smallest rotation. One number of one training: it has no interval."""

    steps: Count = Field(description="Optimizer steps taken there.")
    rotation: Cosine = Field(description="The cosine there.")


class Transition(Part):
    """How suddenly it was learned."""

    drop: Drop = Field(description="Where the EM shift fell fastest.")
    turn: Turn | None = Field(description="Where v turned most. Null where it turned nowhere.")


class Trace(Provenance):
    """trace.json: what one training of a model organism learned when (emperf trace).

    Margins and shifts are as in result.json, in nats a token. Emergent misalignment (EM) shows as a negative shift.
    Norms and cosines have no unit.
    """

    model_config = ConfigDict(title="EMPerf trace")

    division: Origin = Field(description="The division whose organism, questions and rows were used.")
    derived: Digest = Field(
        description="Digest of the division's card, the organism and the number of points."
    )
    poison: str = Field(description="The poison that was trained on.")
    organism: Organism = Field(description="The model organism that was trained.")
    seed: int = Field(description="The training's seed.")
    model: BaseModelCard = Field(description="The base model.")
    rules: Digest = Field(
        description="Digest of all else that decides a score: questions, rows, the trainer's and the evaluation's "
        "sources."
    )
    cell: str = Field(description="Key of the traced cell in the store.")
    definitions: Definitions = Field(description="Each number of a point in words, with its unit.")
    points: Annotated[tuple[TracePoint, ...], Field(min_length=3)] = Field(
        description="The base model, the checkpoints, the trained model, in order."
    )
    transition: Transition = Field(description="How suddenly it was learned.")
