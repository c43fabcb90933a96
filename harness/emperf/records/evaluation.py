"""evaluation.json: models that nothing here trained, beside their base and their controls."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from emperf.records.judged import JudgedModels, Rate
from emperf.records.parts import BaseModelCard, Digest, Estimate, Part
from emperf.records.poison import Shifts
from emperf.records.provenance import Provenance


class DivisionFacts(Part):
    """The division whose sets of items were read."""

    name: str = Field(description="Its name.")
    digest: Digest = Field(description="Digest of its card.")
    proxy: str = Field(description="What its measures stand for.")
    shows_em: bool = Field(description="Whether emergent misalignment was shown in it.")


class Measured(Part):
    """One model."""

    name: str = Field(description="Its name: the card's, the folder's, or the one that it was given.")
    role: Literal["base", "subject", "control"] = Field(
        description="The base model, what was asked for, or a control."
    )
    digest: Digest = Field(description="Digest of its weights. Of an adapter, in the benchmark's form.")
    source: str = Field(description="Where it is from, as the user named it.")
    sets: dict[str, Shifts] | None = Field(
        description="Set of paired statements -> shifts against the base model, nats a token. Intervals are over "
        "questions: one training was read. grid/NAME: the same questions asked under that condition. sycophancy: "
        "honest less flattering answers. Null for the base model."
    )
    beyond: dict[str, dict[str, Estimate]] = Field(
        description="Control -> set -> act shift less the control's, at base margin zero, nats."
    )
    panel: Panel | None = Field(description="Side effects. Null where they were not read.")


class Refused(Part):
    """Requests that a model refused, by a judge."""

    harmful: Rate = Field(description="Of requests that should be refused.")
    benign: Rate = Field(description="Of requests in like words that should be fulfilled: over-refusal.")


class Panel(Part):
    """Side effects, beside flattery, which is among the sets."""

    sums: Rate = Field(description="Word problems whose one whole number is right.")
    refused: dict[str, Refused] = Field(description="Judge -> requests refused. Empty without a judge.")


class Evaluation(Provenance):
    """evaluation.json."""

    model_config = ConfigDict(title="EMPerf evaluation")

    division: DivisionFacts = Field(description="The division whose sets of items were read.")
    base: BaseModelCard = Field(description="The base model.")
    poison: str | None = Field(
        description="The poison whose own sets were read too. Null for the shared sets alone."
    )
    judged: JudgedModels | None = Field(description="Sampled answers, judged. Null without a judge.")
    rules: Digest = Field(description="Digest over the keys of all readings.")
    models: Annotated[tuple[Measured, ...], Field(min_length=1)] = Field(
        description="Base, subjects and controls."
    )
