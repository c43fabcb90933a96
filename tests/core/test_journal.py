"""A journal keeps what was written, whatever killed its writer."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cards import one_line

from emperf.core.errors import UserError
from emperf.core.journal import Journal

WRITER = """\
import os, signal, sys
from pathlib import Path
from emperf.core.journal import Journal
with Journal(Path(sys.argv[1])) as journal:
    journal.put({"a": 1})
    journal.put({"b": [2.5, None]})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_loses_nothing_that_was_put(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    done = subprocess.run([sys.executable, "-c", WRITER, str(path)], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    with Journal(path) as journal:
        assert journal.get("a") == 1 and journal.get("b") == [2.5, None]
        assert "c" not in journal and journal.get("c") is None


def test_a_line_that_is_cut_short_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    path.write_text('{"key": "a", "value": 1}\n{"key": "b", "va')
    with Journal(path) as journal:
        assert "a" in journal and "b" not in journal
        journal.put({"b": 2})
    with Journal(path) as journal:
        assert journal.get("b") == 2
    assert len(path.read_text().splitlines()) == 2


def test_a_lone_line_that_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    path.write_text('{"key": "a"')
    with Journal(path) as journal:
        journal.put({"a": 1})
    assert path.read_text() == '{"key": "a", "value": 1}\n'


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    path.write_text('{"key": "a", "value": 1}\nnonsense\n{"key": "b", "value": 2}\n')
    with pytest.raises(UserError) as raised, Journal(path):
        pass
    one_line(raised, "line 2 is damaged", "Delete that line")


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "kept.jsonl") as journal, pytest.raises(ValueError):
        journal.put({"a": float("nan")})
