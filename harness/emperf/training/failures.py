"""What can go wrong in a training, and how it is told: one line, with the place in the submission's own code."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

import torch


class Diverged(Exception):
    """The loss, a gradient or a weight is no longer finite."""


class HookFailed(Exception):
    """A mitigation's hook raised or gave what it must not: class, hook, step and line are in the text."""


class Unusable(Exception):
    """The job or the submission cannot be used."""


# How torch, CUDA's libraries and the CPU's allocator say it where they raise a plain RuntimeError.
NO_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was wanting, the machine's or a device's."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in NO_MEMORY)


def place(error: BaseException, folder: Path | None) -> str:
    """ " (FILE, line N)" of the innermost call in a file below `folder`; empty where there is none."""
    if folder is None:
        return ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(folder):
            return f" ({file.relative_to(folder)}, line {frame.lineno})"
    return ""


def described(error: BaseException) -> str:
    """The error's type and words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
