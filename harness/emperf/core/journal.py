"""An append-only file of what must not be asked for twice: what was written stays, whatever kills the writer."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from emperf.core.errors import UserError
from emperf.core.files import disk_errors


class Journal:
    """key -> plain JSON, a line each. Use it as a context manager: it holds the file's lock.

    A last line that is cut short, as a killed writer leaves it, is dropped; a damaged one before it is refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = {}

    def __enter__(self) -> Journal:
        with disk_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("a+b")
            fcntl.flock(self._stream, fcntl.LOCK_EX)
            self._known = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def get(self, key: str) -> Any:
        """What is kept under the key, None if nothing is."""
        return self._known.get(key)

    def put(self, found: Mapping[str, Any]) -> None:
        """Keep these; they are on the disk when it returns. Raises ValueError for a number that is not finite."""
        lines = [
            json.dumps({"key": key, "value": value}, allow_nan=False, ensure_ascii=False)
            for key, value in found.items()
        ]
        with disk_errors(self.path.parent):
            self._stream.write("".join(f"{line}\n" for line in lines).encode())
            self._stream.flush()
            os.fsync(self._stream.fileno())
        self._known.update(found)

    def _read(self) -> dict[str, Any]:
        self._stream.seek(0)
        whole, _, torn = self._stream.read().rpartition(b"\n")
        if torn:
            self._stream.truncate(len(whole) + 1 if whole else 0)
        known = {}
        for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
            try:
                entry = json.loads(line)
                known[entry["key"]] = entry["value"]
            except (ValueError, TypeError, KeyError):
                raise UserError(
                    f"{self.path}, line {number} is damaged", "Delete that line: what it held is asked again."
                ) from None
        return known
