"""Cells and runs on disk: content-addressed, written whole or not at all.

    STORE/cells/<key>/            a cell's scores: cell.json, scores.json, record.json, its weights as safetensors
    STORE/runs/<run id>/          one run: run.json, cells/<key>.json (time, memory, failure), attempts.jsonl,
                                  result.json

A folder or file appears under its final name by one rename, after its bytes are on the disk. What a killed
harness left half-written is named `.partial-*`; the next start of the run removes it, or below cells/, which
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

from emperf.core.errors import UserError

STALE_S = 3600.0


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk under {path} is full",
                "Free some space and run the same command: it goes on from here.",
            ) from None
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise UserError(f"{path} cannot be written", "Choose another place with --store.") from None
        raise


def write_json(path: Path, value: Any) -> None:
    """Atomic: the old content or the new one, never a part."""
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".partial-{path.name}-{os.getpid()}")
        with partial.open("w") as stream:
            json.dump(value, stream, indent=1, sort_keys=True, allow_nan=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)


def read_json(path: Path) -> Any:
    """The value, or None if there is no such file. Raises UserError if it is not what the store wrote."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(f"{path} is damaged", "Delete it; the run measures it again.") from None


class CellStore:
    """Scores by cell key."""

    def __init__(self, root: Path) -> None:
        self.root = root / "cells"

    def scores(self, key: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = read_json(self.root / key / "scores.json")
        return found

    def record(self, key: str) -> dict[str, Any] | None:
        """What was measured of the cell when it was first scored."""
        found: dict[str, Any] | None = read_json(self.root / key / "record.json")
        return found

    def weights(self, key: str, name: str) -> Path | None:
        """The file of the cell's weights, None if the cell has no scores."""
        path = self.root / key / name
        return path if path.is_file() else None

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """A folder to fill; it becomes the cell when the block ends without an exception."""
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            partial = self.root / f".partial-{key}-{secrets.token_hex(4)}"
            partial.mkdir()
            try:
                yield partial
                for file in partial.iterdir():
                    with file.open("rb") as stream:
                        os.fsync(stream.fileno())
                try:
                    partial.rename(self.root / key)
                except OSError as error:
                    # Another run measured the same cell meanwhile; its scores stand.
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


class RunStore:
    """One run's folder. Use it as a context manager: it holds the run's lock."""

    def __init__(self, root: Path, run_id: str) -> None:
        self.root, self.run_id = root, run_id
        self.folder = root / "runs" / run_id
        self.cells = CellStore(root)

    def __enter__(self) -> RunStore:
        with disk_errors(self.root):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Run {self.run_id} is already going on", "Wait for it, or stop that process first."
            ) from None
        for leftover in [*self.folder.rglob(".partial-*")]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        self.cells.sweep()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def cell_file(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

    def cell(self, key: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = read_json(self.cell_file(key))
        return found

    def attempt(self, key: str, **facts: Any) -> None:
        """Append one line to attempts.jsonl: every try is kept, whatever came of it."""
        line = json.dumps({"time": round(time.time(), 3), "cell": key, **facts}, sort_keys=True)
        with disk_errors(self.folder), (self.folder / "attempts.jsonl").open("a") as stream:
            stream.write(line + "\n")
