"""The console: 80 columns in a pipe, and no character that stops a command."""

from __future__ import annotations

import io
import sys

import pytest
from rich.text import Text

from emperf.report import console


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    monkeypatch.delenv("COLUMNS", raising=False)
    return io.BytesIO()


def stdout(monkeypatch: pytest.MonkeyPatch, pipe: io.BytesIO, encoding: str) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe, encoding=encoding, write_through=True))


@pytest.mark.parametrize(
    ("columns", "width"), [(None, 80), ("132", 132), ("0", 80), ("wide", 80), ("-3", 80)]
)
def test_a_pipe_is_80_columns_wide_unless_columns_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, pipe: io.BytesIO, columns: str | None, width: int
) -> None:
    stdout(monkeypatch, pipe, "utf-8")
    # Even where the command's stdin is a terminal of another width.
    monkeypatch.setattr("os.get_terminal_size", lambda *_: (213, 50))
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert console.make().width == width


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", "- . 'yes' ? caf?"), ("latin-1", "- . 'yes' ? caf\u00e9"), ("utf-8", None)],
)
def test_what_a_terminal_cannot_show_is_replaced(
    monkeypatch: pytest.MonkeyPatch, pipe: io.BytesIO, encoding: str, shown: str | None
) -> None:
    stdout(monkeypatch, pipe, encoding)
    text = "\u2014 \u2026 \u2018yes\u2019 \u5b57 caf\u00e9"
    made = console.make()
    made.print(Text(text))
    print(text)
    assert pipe.getvalue().decode(encoding).split("\n") == [shown or text, shown or text, ""]


def test_a_path_that_is_no_text_is_printed(monkeypatch: pytest.MonkeyPatch, pipe: io.BytesIO) -> None:
    stdout(monkeypatch, pipe, "utf-8")
    console.make().print(Text("runs/\udce9"))
    assert pipe.getvalue() == b"runs/?\n"


def test_at_most_is_undone_whatever_happens() -> None:
    from rich.console import Console

    wide = Console(width=200)
    with pytest.raises(ValueError, match="x"), console.at_most(wide, 100):
        assert wide.width == 100
        raise ValueError("x")
    assert wide.width == 200
