"""tuning.json: the settings of each mitigation's sweep, and the one that is chosen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from emperf.records.comparison import Row, Table
from emperf.records.parts import Count, Estimate, Part, ScenarioName, Value

Why = Literal["better", "default-unfit", "default", "none-fit", "failed", "no-em", "nothing-learned"]


class Setting(Part):
    """A setting that was tried."""

    setting: dict[str, Value] = Field(description="Parameter -> value, as the sweep has it.")
    row: Row = Field(description="What it came to.")
    over_default: Estimate | None = Field(
        description="Net EM minus that of the default, nats. Null for the default, and where either is not defined."
    )
    beats_default: bool = Field(description="Whether that lies above zero (Holm over the sweep, 5 %).")


class TunedMethod(Part):
    """A method and its sweep."""

    name: str = Field(description="The method's name.")
    scenario: ScenarioName = Field(description="When it acts.")
    settings: Annotated[tuple[Setting, ...], Field(min_length=1, max_length=3)] = Field(
        description="In the order of its sweep: the default first."
    )
    chosen: Count = Field(description="Index of the setting that is chosen.")
    why: Why = Field(
        description="better: certainly above the default. default-unfit: the default fails, keeps too little learning "
        "or costs too much, and this is the best that does not. default: no fit setting is certainly "
        "better. none-fit: no setting is fit. failed: none has a score. no-em, nothing-learned: it is not "
        "certain that the baseline has EM, or has learned, so the default stays."
    )


class Tuning(Table):
    """tuning.json: the settings of each mitigation's sweep on a poison that no score uses.

    Rule R-008 chooses one of them. Units and definitions are those of comparison.json.
    """

    model_config = ConfigDict(title="EMPerf tuning")

    waiting: tuple[str, ...] = Field(
        description="Methods of which a setting has still to be tried. They have no entry."
    )
    methods: Annotated[tuple[TunedMethod, ...], Field(min_length=1)] = Field(
        description="One entry a method."
    )
