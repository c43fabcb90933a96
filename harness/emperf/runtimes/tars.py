"""Tar archives that are streamed, never whole in memory or on disk."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

Entry = tuple[tarfile.TarInfo, Path | bytes | None]


def tar_entry(name: str, content: Path | bytes | None = None, mode: int = 0o755, owner: int = 0) -> Entry:
    """One entry: a file with these bytes or with a file's content, or, without content, a folder."""
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = mode, owner, owner
    if content is None:
        info.type = tarfile.DIRTYPE
    elif isinstance(content, bytes):
        info.size = len(content)
    else:
        # Byte code is valid only beside a source of the very second that it names.
        info.size, info.mtime = content.stat().st_size, int(content.stat().st_mtime)
    return info, content


def tar_link(name: str, target: str) -> Entry:
    """A symbolic link."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    return info, None


def tar_tree(path: Path, name: str, keep: Callable[[Path], bool] = lambda path: True) -> Iterator[Entry]:
    """A file, or a folder with its content, as `name`: links followed, readable by all, in a fixed order."""
    if path.is_dir():
        yield tar_entry(name)
        for child in sorted(path.iterdir()):
            if keep(child):
                yield from tar_tree(child, f"{name}/{child.name}", keep)
    elif path.is_file():
        yield tar_entry(name, path, 0o755 if path.stat().st_mode & 0o100 else 0o644)


def tar_stream(entries: Iterable[Entry]) -> Iterator[bytes]:
    """A tar archive, piece by piece, never whole in memory. Raises OSError if a file shrinks meanwhile."""
    for info, content in entries:
        yield info.tobuf(tarfile.GNU_FORMAT)
        if content is None:
            continue
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
            left = info.size
            while left:
                chunk = stream.read(min(1 << 20, left))
                if not chunk:
                    raise OSError(f"{info.name} shrank while it was copied")
                left -= len(chunk)
                yield chunk
        yield bytes(-info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
