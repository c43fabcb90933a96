"""The one console that all commands print with: its width, and what happens to characters it cannot show."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_OF_A_PIPE = 80
PLAIN = {
    "\u2014": "-",
    "\u2013": "-",
    "\u2026": ".",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
}
REPLACE = "emperf-replace"


def make() -> Console:
    """A console on stdout. In a terminal it is as wide as that; elsewhere 80 columns, unless COLUMNS says otherwise.

    A character that stdout's encoding has not is replaced, so that printing never fails for it.
    """
    from rich.console import Console

    for stream in (sys.stdout, sys.stderr):
        replace_unknown(stream)
    return Console(width=None if sys.stdout.isatty() else width_of_a_pipe())


@contextmanager
def at_most(console: Console, columns: int) -> Iterator[None]:
    """Inside the block the console is no wider than `columns`, since long lines are hard to read."""
    before = console.width
    console.width = min(before, columns)
    try:
        yield
    finally:
        console.width = before


def width_of_a_pipe() -> int:
    """COLUMNS, or 80 where it is no positive number."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) > 0 else WIDTH_OF_A_PIPE


def replace_unknown(stream: object) -> None:
    """From now on `stream` writes a plain character for each one that its encoding has not."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=REPLACE)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """One character for one, so that columns stay aligned."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in unknown), error.end


codecs.register_error(REPLACE, _plain)
