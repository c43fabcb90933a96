"""evaluation.json: models that nothing here trained, beside their base and their controls."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from emperf.records.judged import JudgedModels
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
        "questions: one training was read. Null for the base model."
    )
    beyond: dict[str, dict[str, Estimate]] = Field(
        description="Control -> set -> act shift less the control's, at base margin zero, nats."
    )


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
