"""Units and runs on disk: content-addressed, written whole or not at all.

    STORE/store.json              the version of this layout
    STORE/units/<key>/            a training: weights as a PEFT folder, checkpoints/, train.json
                                  a reading: readings.json
    STORE/runs/<run id>/          one run: run.json, trained/<key>.json (time, memory, failure), logs/, attempts.jsonl,
                                  result.json

A folder or file appears under its final name by one rename, after its bytes are on the disk. What a killed
harness left half-written is named `.partial-*`; the next start of the run removes it, or below units/, which
runs share, the first start an hour later.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emperf.core import digests
from emperf.core.errors import UserError
from emperf.core.files import disk_errors, read_json, write_json

LAYOUT = 2
STALE_S = 3600.0
ADAPTER, ALL_WEIGHTS = "adapter_model.safetensors", "model.safetensors"


class UnitStore:
    """Trainings and readings by key. What is damaged counts as missing: it is put aside and made again."""

    def __init__(self, root: Path) -> None:
        self.root = root / "units"
        self._checked: set[Path] = set()

    def readings(self, key: str) -> Any:
        """A reading's content, None where it is missing or damaged."""
        try:
            found = read_json(self.root / key / "readings.json")
            if found is None:
                return None
            if found["digest"] == digests.of_json(found["readings"]):
                return found["readings"]
        except (UserError, TypeError, KeyError):
            pass
        self._put_aside(key)
        return None

    def keep_readings(self, key: str, readings: Any, facts: dict[str, Any]) -> None:
        """`facts`: of what and how it was read, for people. Raises ValueError for a number that is not finite."""
        whole = {"digest": digests.of_json(readings), "readings": readings, **facts}
        with self.writing(key) as folder:
            write_json(folder / "readings.json", whole)
        self.journal(key).unlink(missing_ok=True)

    def journal(self, key: str) -> Path:
        """Where a reading that takes long keeps its parts until it is whole."""
        return self.root / f".journal-{key}.jsonl"

    def trained(self, key: str) -> dict[str, Any] | None:
        """What is known of a training: `record`, `losses`, `gradient_norms`, `files` (name -> sha256); None where it is
        missing, or where one of its files is missing or another one.

        Files are read once a process.
        """
        folder = self.root / key
        try:
            found: dict[str, Any] | None = read_json(folder / "train.json")
        except UserError:
            found = {"files": {"train.json": "damaged"}}
        if found is None:
            return None
        if folder not in self._checked:
            for name, digest in found["files"].items():
                path = folder / name
                if not path.is_file() or digests.of_file(path) != digest:
                    self._put_aside(key)
                    return None
            self._checked.add(folder)
        return found

    def weights(self, key: str, step: int | None = None) -> Path | None:
        """The file of a training's weights, or of its checkpoint after `step` steps; None where it is not there."""
        found = self.trained(key)
        if found is None:
            return None
        names = [f"checkpoints/step-{step:05d}.safetensors"] if step else [ADAPTER, ALL_WEIGHTS]
        return next((self.root / key / name for name in names if name in found["files"]), None)

    def _put_aside(self, key: str) -> None:
        with disk_errors(self.root):
            (self.root / key).rename(self.root / f".damaged-{key}-{secrets.token_hex(4)}")

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """A folder to fill; it becomes the unit when the block ends without an exception."""
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            partial = self.root / f".partial-{key}-{secrets.token_hex(4)}"
            partial.mkdir()
            try:
                yield partial
                for file in partial.rglob("*"):
                    if file.is_file():
                        with file.open("rb") as stream:
                            os.fsync(stream.fileno())
                try:
                    partial.rename(self.root / key)
                except OSError as error:
                    # Another run made the same unit meanwhile; it stands.
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed harnesses left: a live one fills its folder within seconds."""
        for leftover in self.root.glob(".partial-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > STALE_S:
                    shutil.rmtree(leftover, ignore_errors=True)


def is_record(found: Any) -> bool:
    """Whether it is a record of a training: measured, or failed with a kind and a detail."""
    if not isinstance(found, dict) or "failure" not in found:
        return False
    failure = found["failure"]
    if failure is None:
        return isinstance(found.get("wall_s"), int | float)
    return isinstance(failure, dict) and set(failure) == {"kind", "detail"}


def check_layout(root: Path) -> None:
    """Raises UserError where `root` is a store of another version; a new one is marked as of this."""
    found = read_json(root / "store.json")
    if found is None and (root / "cells").is_dir():
        found = {"layout": 1}
    if found is None:
        write_json(root / "store.json", {"layout": LAYOUT})
    elif not isinstance(found, dict) or found.get("layout") != LAYOUT:
        raise UserError(
            f"{root} was written by another version of EMPerf, and its results cannot be used by this one",
            "Name another folder with --store, or move that one away.",
        )


class RunStore:
    """One run's folder. Use it as a context manager: it holds the run's lock."""

    def __init__(self, root: Path, run_id: str) -> None:
        self.root, self.run_id = root, run_id
        self.folder = root / "runs" / run_id
        self.units = UnitStore(root)

    def __enter__(self) -> RunStore:
        with disk_errors(self.root):
            check_layout(self.root)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Run {self.run_id} is already going on", "Wait for it, or stop that process first."
            ) from None
        for leftover in [*self.folder.rglob(".partial-*")]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        self.units.sweep()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def record(self, train: str) -> dict[str, Any] | None:
        """What this run measured of a training (time, memory, failure); None where it has not, or the record is
        damaged."""
        try:
            found = read_json(self._record(train))
        except UserError:
            return None
        return found if is_record(found) else None

    def keep(self, train: str, record: dict[str, Any]) -> None:
        write_json(self._record(train), record)

    def _record(self, train: str) -> Path:
        return self.folder / "trained" / f"{train}.json"

    def keep_log(self, train: str, job: str, log: str) -> None:
        """What a container printed, one file an attempt."""
        with disk_errors(self.folder):
            folder = self.folder / "logs"
            folder.mkdir(exist_ok=True)
            (folder / f"{train}-{job}.log").write_text(log, errors="replace", encoding="utf-8")

    def attempt(self, train: str, **facts: Any) -> None:
        """Append one line to attempts.jsonl: every try is kept, whatever came of it."""
        line = json.dumps({"time": round(time.time(), 3), "train": train, **facts}, sort_keys=True)
        with disk_errors(self.folder), (self.folder / "attempts.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
