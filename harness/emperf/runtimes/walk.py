"""The files that a stopped program left in a folder of this machine, none of them followed."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from emperf.runtimes import OutputFile

_MAX_DEPTH = 64
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK


def walk(folder: Path) -> Iterator[OutputFile]:
    """Each entry below `folder`, as `Runtime.collect` describes it.

    "other" is also a file with a second name, which may be outside of `folder`, and a folder that cannot be
    opened or lies more than 64 deep: what is in it is not listed. Raises OSError if `folder` is a link or is
    missing.
    """
    root = os.open(folder, _FOLDER_FLAGS)
    todo: list[tuple[str, ...]] = [()]
    try:
        while todo:
            parts = todo.pop()
            with _opened(root, parts) as inner:
                for name in os.listdir(inner):  # noqa: PTH208
                    entry = _entry(inner, "/".join((*parts, name)), name, len(parts))
                    if entry.kind == "dir":
                        todo.append((*parts, name))
                    yield entry
    finally:
        os.close(root)


@contextlib.contextmanager
def _opened(root: int, parts: tuple[str, ...]) -> Iterator[int]:
    """The folder `parts` below `root`, opened one level at a time so that no link is followed at any."""
    folder = os.dup(root)
    try:
        for part in parts:
            inner = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _entry(folder: int, path: str, name: str, depth: int) -> OutputFile:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return OutputFile(path, "symlink", 0, None)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return OutputFile(path, "file", status.st_size, lambda: _stream(folder, name))
    if stat.S_ISDIR(status.st_mode) and depth < _MAX_DEPTH:
        with contextlib.suppress(PermissionError):
            os.close(os.open(name, _FOLDER_FLAGS, dir_fd=folder))
            return OutputFile(path, "dir", 0, None)
    return OutputFile(path, "other", 0, None)


def _stream(folder: int, name: str) -> IO[bytes]:
    return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb")


def remove_tree(folder: Path) -> None:
    """Remove a folder, however deep and whatever the modes in it; none at all is no error."""
    # Not shutil.rmtree: a program may nest folders deeper than Python recurses.
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        if folder.exists():
            subprocess.run([*command, "--", str(folder)], check=False, capture_output=True)
