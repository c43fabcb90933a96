"""What a submission's container runs of this package: the reference trainer, and no file more."""

from __future__ import annotations

import shutil
from pathlib import Path

from emperf.core import sources

MODULE = "emperf.training.__main__"
ARGUMENTS = ["-m", "emperf.training", "--in", "/in", "--out", "/out", "--submission", "/submission"]


def copy_trainer(into: Path) -> None:
    """The package `emperf` below `into`, with the files that the trainer runs and no others."""
    for source in sources.closure(MODULE):
        target = into / "emperf" / source.relative_to(sources.PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        # With its time: byte code is valid for a source of that very second alone.
        shutil.copy2(source, target)


def digest() -> str:
    """Of these files, names and contents."""
    return sources.digest(MODULE)
