"""What can go wrong, in two families: a user's mistake, and a cell's failure.

A `UserError` ends the command with one line (cause and fix) and exit code 2. A `CellFailure` ends one cell;
the others go on. Its kind says whose fault it is: only `MACHINE` is nobody's, is retried and never scored.
"""

from __future__ import annotations

from enum import StrEnum


class UserError(Exception):
    """Something a person can mend. `str()` is one line: what is wrong, then what to do."""

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(f"{cause.rstrip('.')}. {fix}")
        self.cause, self.fix = cause, fix


class FailureKind(StrEnum):
    """Why a cell has no score. `NO_START`: a cell whose weights it needs has failed."""

    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out-of-memory"
    TIMED_OUT = "timed-out"
    BROKE_CONTRACT = "broke-contract"
    NO_START = "no-start"
    MACHINE = "machine-fault"


class CellFailure(Exception):
    """One cell failed. `detail` is one line that names the cause and, where there is one, the fix."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(f"{kind.value}: {detail}")
        self.kind, self.detail = kind, detail
