"""JSON files that are whole or absent, and a full or read-only disk as one line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emperf.core.errors import UserError


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
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise UserError(f"{path} is not a folder", "Choose another place with --store.") from None
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise UserError(f"{path} cannot be written", "Choose another place with --store.") from None
        raise


def write_json(path: Path, value: Any) -> None:
    """Atomic: the old content or the new one, never a part."""
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".partial-{path.name}-{os.getpid()}")
        with partial.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1, sort_keys=True, allow_nan=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)


def read_json(path: Path) -> Any:
    """The value, or None if there is no such file. Raises UserError if it is not what the store wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise UserError(
            f"{path.parent} is a file, not a folder", "Choose another place with --store."
        ) from None
    except ValueError:
        raise UserError(
            f"{path} is damaged", "Delete it, and run the same command again: what it held is made again."
        ) from None
