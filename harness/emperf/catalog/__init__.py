"""benchmark/ and submissions as typed objects."""

from emperf.catalog.cards import (
    Antidotes,
    Model,
    Poison,
    RowsFile,
    Source,
    Task,
    division,
    model,
    names,
    pinned_rows,
    poison,
    questions,
    task,
    trusted,
    upstream_rows,
    voices,
)
from emperf.catalog.divisions import Division, SeedSpread, Sizes
from emperf.catalog.submissions import Parameter, Submission, submission
from emperf.core.schemas import check

__all__ = [
    "Antidotes", "Division", "Model", "Parameter", "Poison", "RowsFile", "SeedSpread", "Sizes", "Source", "Submission",
    "Task", "check", "division", "model", "names", "pinned_rows", "poison", "questions", "submission", "task",
    "trusted", "upstream_rows", "voices",
]  # fmt: skip
