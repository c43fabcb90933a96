"""The store: whole or absent, whatever stops the harness, and one line when the disk does."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from emperf.core import digests
from emperf.core.errors import UserError
from emperf.core.files import read_json, write_json
from emperf.execute import store
from emperf.execute.store import RunStore, UnitStore

RECORD = {"failure": None, "wall_s": 1.0}
FILL = """
import sys, time
from pathlib import Path
from emperf.core.files import write_json
from emperf.execute.store import UnitStore
root, key = Path(sys.argv[1]), sys.argv[2]
with UnitStore(root).writing(key) as folder:
    write_json(folder / "readings.json", {"a": 1})
    with (folder / "adapter.safetensors").open("wb") as stream:
        stream.write(bytes(1 << 16))
        stream.flush()
        print("half", flush=True)
        time.sleep(60)
"""
HOLD = """
import sys, time
from pathlib import Path
from emperf.execute.store import RunStore
with RunStore(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    time.sleep(60)
"""


def start(program: str, *arguments: str, says: str) -> subprocess.Popen[str]:
    """A Python program that has printed `says` and sleeps."""
    child = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline().strip() == says
    return child


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def partials(root: Path) -> list[Path]:
    return list(root.rglob(".partial-*"))


def test_a_value_comes_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/value.json"
    write_json(path, {"b": [1, 2.5, None], "a": "é"})
    assert read_json(path) == {"a": "é", "b": [1, 2.5, None]}
    assert [entry.name for entry in path.parent.iterdir()] == ["value.json"]
    assert read_json(tmp_path / "none.json") is None


@pytest.mark.parametrize("value", [{"x": float("nan")}, {"x": object()}])
def test_a_value_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, value: Any) -> None:
    write_json(tmp_path / "value.json", {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == {"old": 1}


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "value.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"value\.json is damaged\. Delete it"):
        read_json(tmp_path / "value.json")


def test_readings_come_back_as_they_were_kept(tmp_path: Path) -> None:
    units = UnitStore(tmp_path)
    assert units.readings("k") is None
    units.keep_readings("k", [{"a": 0.1}], {"set": "facts"})
    assert units.readings("k") == [{"a": 0.1}]
    assert not partials(tmp_path)
    with pytest.raises(ValueError):
        units.keep_readings("l", [float("nan")], {})
    assert units.readings("l") is None


@pytest.mark.parametrize("damage", ["{}", "[]", '{"a": ', "", "1", '{"readings": [2], "digest": "sha256:1"}'])
def test_damaged_readings_are_missing_and_can_be_made_again(tmp_path: Path, damage: str) -> None:
    units = UnitStore(tmp_path)
    units.keep_readings("k", [1], {})
    (units.root / "k/readings.json").write_text(damage)
    assert units.readings("k") is None
    units.keep_readings("k", [1], {})
    assert units.readings("k") == [1]


def keep_weights(units: UnitStore, key: str) -> Path:
    with units.writing(key) as folder:
        (folder / store.ADAPTER).write_bytes(b"weights")
        write_json(folder / "train.json", {"files": {store.ADAPTER: digests.of_file(folder / store.ADAPTER)}})
    return units.root / key / store.ADAPTER


@pytest.mark.parametrize("damage", [b"", b"weighty", b"weights "])
def test_weights_that_are_not_those_that_were_kept_are_missing(tmp_path: Path, damage: bytes) -> None:
    path = keep_weights(UnitStore(tmp_path), "k")
    assert UnitStore(tmp_path).weights("k") == path
    path.write_bytes(damage)
    assert UnitStore(tmp_path).weights("k") is None
    assert keep_weights(UnitStore(tmp_path), "k").read_bytes() == b"weights"


def test_a_store_of_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "old/cells/k").mkdir(parents=True)
    write_json(tmp_path / "new/store.json", {"layout": store.LAYOUT + 1})
    for name in ("old", "new"):
        with pytest.raises(UserError, match="another version of EMPerf"), RunStore(tmp_path / name, "run"):
            pass
        assert not (tmp_path / name / "runs").exists()


@pytest.mark.parametrize("inside", ["runs", "runs/deeper"])
def test_a_store_below_a_file_is_one_line(tmp_path: Path, inside: str) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="not a folder"), RunStore(tmp_path / inside, "run"):
        pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    units = UnitStore(tmp_path)
    with pytest.raises(error), units.writing("k") as folder:
        write_json(folder / "readings.json", {"a": 1})
        raise error
    assert not list(units.root.iterdir())


def test_kill_9_leaves_nothing_under_a_final_name(tmp_path: Path) -> None:
    kill(start(FILL, str(tmp_path), "k", says="half"))
    units = UnitStore(tmp_path)
    assert units.readings("k") is None
    assert not (units.root / "k").exists()
    units.keep_readings("k", {"a": 2}, {})
    assert units.readings("k") == {"a": 2}


def test_a_later_start_clears_what_kill_9_left(tmp_path: Path) -> None:
    kill(start(FILL, str(tmp_path), "k", says="half"))
    units = UnitStore(tmp_path)
    (left,) = partials(tmp_path)
    with RunStore(tmp_path, "run"):
        assert left.exists(), "another run may be filling it still"
    old = time.time() - store.STALE_S - 1
    os.utime(left, (old, old))
    with RunStore(tmp_path, "run"):
        assert not list(units.root.iterdir())


def test_the_first_of_two_that_make_the_same_unit_stands(tmp_path: Path) -> None:
    units = UnitStore(tmp_path)
    with units.writing("k") as first, units.writing("k") as second:
        write_json(first / "train.json", {"files": {}, "who": "first"})
        write_json(second / "train.json", {"files": {}, "who": "second"})
    found = units.trained("k")
    assert found and found["who"] == "second", "the inner block ends first"
    assert not partials(tmp_path)


def test_one_run_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    child = start(HOLD, str(tmp_path), says="held")
    with pytest.raises(UserError, match="already going on"), RunStore(tmp_path, "run"):
        pass
    with RunStore(tmp_path, "another"):
        pass
    kill(child)
    with RunStore(tmp_path, "run"):
        pass


def test_a_runs_leftovers_are_cleared_at_its_start(tmp_path: Path) -> None:
    folder = tmp_path / "runs/run"
    write_json(folder / "trained/k.json", RECORD)
    (folder / "trained/.partial-k.json-1").write_text("{")
    (folder / ".partial-scratch").mkdir()
    (folder / ".partial-scratch/adapter.safetensors").write_bytes(b"x")
    with RunStore(tmp_path, "run") as opened:
        assert opened.record("k") == RECORD
        assert not partials(tmp_path)


def test_every_attempt_is_kept(tmp_path: Path) -> None:
    with RunStore(tmp_path, "run") as opened:
        opened.attempt("k", job="1", failure="machine-fault")
        opened.attempt("k", job="2", failure=None)
    lines = [json.loads(line) for line in (tmp_path / "runs/run/attempts.jsonl").read_text().splitlines()]
    assert [(line["train"], line["job"], line["failure"]) for line in lines] == [
        ("k", "1", "machine-fault"),
        ("k", "2", None),
    ]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "is full. Free some space and run the same command"),
        (errno.EDQUOT, "is full. Free some space"),
        (errno.EROFS, "cannot be written. Choose another place with --store"),
    ],
)
def test_a_disk_that_takes_no_more_gives_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with RunStore(tmp_path, "run") as opened:
        opened.keep("k", RECORD)
        monkeypatch.setattr(json, "dump", no_room)
        for write in (
            lambda: opened.keep("k", {"new": 1}),
            lambda: opened.units.keep_readings("k", {"new": 1}, {}),
        ):
            with pytest.raises(UserError) as error:
                write()
            assert words in str(error.value)
            assert "\n" not in str(error.value)
        assert opened.record("k") == RECORD
        assert opened.units.readings("k") is None
        assert not partials(opened.units.root)
