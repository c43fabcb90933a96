"""What the records are built of: strict types, and the parts that several records share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# The default of a field that may be left out. Null in its place is refused, because a default is not checked.
LEFT_OUT: Any = None


class Part(BaseModel):
    """Nothing is converted, no field is added, no number is infinite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Value = bool | int | float | str
ScenarioName = Literal["prevent", "cure", "prevent-rl"]


class BaseModelCard(Part):
    """The base model."""

    name: str = Field(description="The model card's name.")
    digest: Digest = Field(description="Digest over weights by tensor content, tokenizer and chat template.")


class Estimate(Part):
    """A mean, or a formula of means, with its 95 % interval.

    Most intervals are Student's t under crossed random effects of items and seeds. Their degrees of freedom are
    Satterthwaite's. The seeds' spread is joined with the division's own measurement of it (emperf.scoring.estimate).
    Intervals of ratios are by Fieller or linearised, those of shares are by Wilson. All numbers are null where the
    value is not defined: a share of a quantity that is not shown to differ from nothing.
    """

    value: float | None = Field(description="The estimate.")
    low: float | None = Field(description="Lower end of the 95 % interval.")
    high: float | None = Field(description="Upper end of the 95 % interval.")
    items: Count = Field(description="Items (questions). Of the smallest set where there are several.")
    seeds: Count = Field(description="Training seeds. Where several poisons are pooled: poisons.")
    se: float | None = Field(description="Standard error. Null where the interval is not Student's t.")
    df: float | None = Field(description="Degrees of freedom of the interval.")


class Ratio(Part):
    """A geometric mean of paired ratios. `value` is null without a pair, `low` and `high` with fewer than two."""

    value: Annotated[float, Field(gt=0)] | None = Field(
        description="Geometric mean of mitigated over baseline."
    )
    low: float | None = Field(description="Lower end of the 95 % interval.")
    high: float | None = Field(description="Upper end of the 95 % interval.")
    items: Count = Field(description="Pairs of cells.")
    seeds: Count = Field(description="Always 1: seeds are among the pairs.")
    se: float | None = Field(default=None, description="Always null: the interval is one of logarithms.")
    df: float | None = Field(default=None, description="Always null: the interval is one of logarithms.")


class Overhead(Part):
    """Ratios of mitigated to baseline cells of the same data and seed. 1 is no overhead.

    A cure counts with the training that it mends: time and energy of both, and the greater peak. Each is a geometric
    mean over the pairs, with Student's t interval on the logarithms.
    """

    time: Ratio = Field(
        description="Host wall-clock from a container's start to its exit. Start-up is included."
    )
    training_time: Ratio = Field(
        description="The trainer's own interval from first step to last, only where it fits inside the host's."
    )
    memory: Ratio = Field(
        description="Peak memory of the container by the host's meter, which each cell names."
    )
    device_memory: Ratio = Field(
        description="Peak memory in use on the job's GPUs over what was in use before it."
    )
    energy: Ratio = Field(description="Energy of the job's GPUs.")


class Task(Part):
    """Shares of exact answers on held-out items, 0 to 1."""

    name: str = Field(description="The task's name.")
    base: Estimate = Field(description="The model before any training.")
    baseline: Estimate = Field(description="Plain fine-tuning.")
    mitigated: Estimate | None = Field(description="With the mitigation. Null without one.")
    tax: Estimate | None = Field(
        description="(baseline - mitigated) / (baseline - base), by Fieller. It is the share of the baseline's gain "
        "that the mitigation loses. Undefined unless the gain lies two standard errors above zero."
    )
    tax_at_most: float | None = Field(
        description="One-sided 95 % upper bound of the tax: the non-inferiority bound."
    )
