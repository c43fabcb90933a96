"""comparison.json: mitigations side by side."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from emperf.core.errors import FailureKind
from emperf.records.parts import Count, Digest, Overhead, Part, ScenarioName, Task, Value
from emperf.records.poison import PoisonEntry
from emperf.records.provenance import Provenance

Rank = Annotated[int, Field(ge=1)]


class Scale(Part):
    """The division whose cells these are."""

    name: str = Field(description="Its name.")
    digest: Digest = Field(description="Digest of the division's card.")
    proxy: str = Field(description="What its numbers stand in for.")
    shows_em: bool = Field(
        description="Whether emergent misalignment was shown in the division. If not, its EM numbers show the "
        "machinery alone."
    )


class Cells(Part):
    """Cells of the table as it was asked for."""

    done: Count = Field(description="Cells with a record.")
    planned: Count = Field(description="All cells.")


class FailedCell(Part):
    """A cell that failed."""

    kind: FailureKind = Field(description="Whose fault it is.")
    detail: str = Field(description="One line: the cause.")
    cell: str = Field(description="The cell's label.")


class Row(Part):
    """A method, one of its controls, or a setting of it."""

    name: str = Field(description="The method's name, with its control's in brackets.")
    scenario: ScenarioName = Field(description="When it acts.")
    parameters: dict[str, Value] = Field(description="Every parameter's value.")
    digest: Digest = Field(description="Digest of the submission's whole folder.")
    failures: tuple[FailedCell, ...] = Field(description="Its cells that failed.")
    poisons: PoisonEntry | None = Field(description="All poisons pooled. Null if a cell failed.")
    tasks: Task | None = Field(description="All tasks side by side. Null without one, or if a cell failed.")
    overhead: Overhead = Field(description="Costs of its cells over the baseline's.")
    adjusted_p: float | None = Field(
        description="p of no selective removal, by Holm over all methods of the table. Null where a cell failed."
    )
    selective: bool | None = Field(
        description="Whether selective removal lies above zero after that. Null where a cell failed."
    )
    rank: tuple[Rank, Rank] | None = Field(
        description="Best and worst rank by net EM that no pairwise difference rules out (Holm over all pairs, 5 %). "
        "Null where it is not defined."
    )


class Table(Provenance):
    """What comparisons and tunings say of themselves."""

    division: Scale = Field(description="The division whose cells these are.")
    model: str = Field(description="The base model's card.")
    poisons: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="The poisons that are whole for all methods: what the table holds."
    )
    tasks: tuple[str, ...] = Field(description="The tasks that are whole for all methods.")
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = Field(
        description="The seeds that are whole for all of these."
    )
    cells: Cells = Field(description="Cells of the table as it was asked for.")
    parallel: Annotated[int, Field(ge=1)] = Field(
        description="How many cells trained at a time, at most. Times of a crowded machine say less."
    )
    baseline: PoisonEntry | None = Field(
        description="The poisoned model and its twin. Null where a baseline failed."
    )


class Comparison(Table):
    """comparison.json: mitigations side by side on the same cells of one division.

    Several poisons are pooled, with the poisons as replicates. The tasks' items stand side by side. Units and
    definitions are those of result.json.
    """

    model_config = ConfigDict(title="EMPerf comparison")

    rows: tuple[Row, ...] = Field(description="One entry a method or control.")
