"""The console: 80 columns in a pipe, and no character that stops a command."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

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


PRINTS = r"""
import sys
from pathlib import Path
from emperf.report import comparison, console, scorecard
from tests.synthetic import Run
made = console.make()
scorecard.print_scorecard(Run().result() | {"missing": ["\u2014\u5b57"]}, made, Path("runs/\u5b57"))
comparison.save = lambda chart, path: None
base = {"name": "nano", "proxy": "\u5b57", "shows_em": True}
row = {"name": "kl", "scenario": "prevent", "failures": [{"kind": "diverged"}], "poisons": None, "tasks": None}
row["rank"] = None
row["overhead"] = {key: {"value": None} for key in ("time", "memory")}
comparison.print_comparison({
    "division": base, "model": "m", "created": "2026-11-21", "emperf": "0.1.0", "runtime": {"runtime": "process"},
    "machine": {"processor": "\u5b57", "cores": 2}, "parallel": 1, "poisons": [], "tasks": [], "seeds": [0],
    "cells": {"done": 1, "planned": 1}, "baseline": None, "rows": [row],
}, made, Path(sys.argv[1]))
"""


def test_a_whole_run_prints_and_is_written_where_the_locale_is_ascii(tmp_path: Path) -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", PRINTS, tmp_path],
        capture_output=True, check=False, env={**os.environ, **locale}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr.decode()
    text = " ".join(ran.stdout.decode("ascii").split())
    assert "-?: left out" in text and "runs/?" in text and "failed:" in text
    assert "\u2014" in (tmp_path / "comparison.md").read_text(encoding="utf-8")


def test_at_most_is_undone_whatever_happens() -> None:
    from rich.console import Console

    wide = Console(width=200)
    with pytest.raises(ValueError, match="x"), console.at_most(wide, 100):
        assert wide.width == 100
        raise ValueError("x")
    assert wide.width == 200
