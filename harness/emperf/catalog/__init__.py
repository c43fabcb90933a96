"""benchmark/, the user's own cards and submissions as typed objects."""

from emperf.catalog.cards import (
    Antidotes,
    Model,
    Poison,
    Source,
    Task,
    division,
    listed,
    model,
    names,
    poison,
    questions,
    task,
    trusted,
    users_cards,
    voices,
)
from emperf.catalog.datasets import Dataset, dataset, reads_domain, upstream_rows
from emperf.catalog.divisions import Division, SeedSpread, Sizes
from emperf.catalog.judges import Judge, judge
from emperf.catalog.pinned import Row, RowsFile
from emperf.catalog.submissions import Parameter, Submission, submission
from emperf.core.schemas import check

__all__ = [
    "Antidotes", "Dataset", "Division", "Judge", "Model", "Parameter", "Poison", "Row", "RowsFile", "SeedSpread",
    "Sizes", "Source", "Submission", "Task", "check", "dataset", "division",
    "judge", "listed", "model", "names", "poison", "questions",
    "reads_domain", "submission", "task", "trusted", "upstream_rows", "users_cards", "voices",
]  # fmt: skip
