"""What is said to an engine: content in and out, as tar streams through its socket alone, starts and ends.

The harness may itself be in a container that holds only the engine's socket, so none of its folders can be
mounted: a volume is filled through a container that mounts it and is never started.
"""

from __future__ import annotations

import contextlib
import functools
import io
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.types import Mount

from emperf.errors import CellFailure, FailureKind, UserError
from emperf.runtimes import OutputFile

FAULTS = (DockerException, requests.RequestException, tarfile.TarError, OSError)
FILLED = "emperf.filled"
_PLACE = "emperf-volume"

Entry = tuple[tarfile.TarInfo, Path | bytes | None]


@contextlib.contextmanager
def engine(timeout_s: int = 300) -> Iterator[Any]:
    """The engine's interface; an answer may take `timeout_s`. Its failures become CellFailure(MACHINE)."""
    try:
        with contextlib.closing(docker.from_env(timeout=timeout_s).api) as client:
            yield client
    except FAULTS as error:
        raise CellFailure(FailureKind.MACHINE, f"the container engine failed: {error}") from error


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


def put(client: Any, image: str, volume: str, entries: Iterable[Entry], labels: dict[str, str]) -> None:
    """Stream `entries` into `volume`, "." being its root. `image` is any image: nothing of it runs."""
    host = client.create_host_config(network_mode="none", mounts=[Mount(f"/{_PLACE}", volume, no_copy=True)])
    carrier = client.create_container(image, command=["never"], labels=labels, host_config=host)["Id"]
    try:
        client.put_archive(carrier, "/", tar_stream(_placed(entries)))
    finally:
        client.remove_container(carrier, force=True, v=True)


def _placed(entries: Iterable[Entry]) -> Iterator[Entry]:
    # From above the volume, because an engine changes the owner of any folder but the one it unpacks into.
    for info, content in entries:
        info.name = f"{_PLACE}/{info.name}"
        yield info, content


def shared_volume(client: Any, image: str, digest: str, folder: Path, run_id: str) -> str:
    """The name of a volume that holds `folder`, whose digest is `digest`, filled once on this engine.

    `emperf-shared-<12 digits>` is an empty mark whose label names the volume with the content. It is made
    after the last byte, and making it is atomic: a volume that no mark names is half-filled, and of two
    harnesses that fill at the same time the first to finish wins.
    """
    mark = f"emperf-shared-{digest.rpartition(':')[2][:12]}"
    with contextlib.suppress(NotFound):
        labels = client.inspect_volume(mark)["Labels"]
        if labels["emperf.digest"] == digest:
            with contextlib.suppress(NotFound):
                return str(client.inspect_volume(labels[FILLED])["Name"])
        client.remove_volume(mark)
    own = f"{mark}-{uuid.uuid4().hex[:8]}"
    labels = {"emperf.run": run_id}
    client.create_volume(own, labels=labels)
    try:
        put(client, image, own, tar_tree(folder, "."), labels)
        client.create_volume(mark, labels={FILLED: own, "emperf.digest": digest})
        winner = str(client.inspect_volume(mark)["Labels"][FILLED])
    except BaseException:
        client.remove_volume(own, force=True)
        raise
    if winner != own:
        client.remove_volume(own, force=True)
    return winner


def remove_labelled(client: Any, label: str) -> tuple[int, set[str]]:
    """Remove what carries `label`, but no shared volume that is whole: how many, and of which jobs."""
    removed, jobs = 0, set()
    for container in client.containers(all=True, filters={"label": label}):
        with contextlib.suppress(NotFound):
            client.remove_container(container["Id"], force=True, v=True)
            removed += 1
        jobs.add(container["Labels"].get("emperf.job", ""))
    marks = client.volumes(filters={"label": FILLED})["Volumes"] or []
    whole = {mark["Labels"][FILLED] for mark in marks}
    for volume in client.volumes(filters={"label": label})["Volumes"] or []:
        if volume["Name"] not in whole:
            with contextlib.suppress(NotFound):
                client.remove_volume(volume["Name"])
                removed += 1
    return removed, jobs - {""}


def read_archive(client: Any, container: str, path: str, limit: int) -> Iterator[OutputFile]:
    """The entries of a folder of a stopped container.

    Raises CellFailure(BROKE_CONTRACT) rather than read past a file of more than `limit` bytes: a file of
    holes takes no disk, but an engine sends every byte of it.
    """
    pieces, _ = client.get_archive(container, path)
    source = io.BufferedReader(_Pieces(pieces), 1 << 20)
    with tarfile.open(fileobj=source, mode="r|", bufsize=1 << 20) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if name in ("", "."):
                continue
            if member.isreg():
                yield OutputFile(name, "file", member.size, functools.partial(_extract, tar, member))
                if member.size > limit:
                    detail = f"{name!r} in /out has {member.size} bytes, over {limit}"
                    raise CellFailure(FailureKind.BROKE_CONTRACT, detail)
            else:
                kind = "dir" if member.isdir() else "symlink" if member.issym() else "other"
                yield OutputFile(name, kind, 0, None)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    assert stream is not None
    return stream


class _Pieces(io.RawIOBase):
    """A file, for reading once, of the pieces that an engine sends."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces, self.rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest:
            piece = next(self.pieces, None)
            if piece is None:
                return 0
            self.rest = piece
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size


class Waiter(threading.Thread):
    """Ends with the container, `ended` being when (monotonic clock), or, then None, with the engine."""

    def __init__(self, container: str) -> None:
        super().__init__(daemon=True)
        self.container = container
        self.ended: float | None = None
        self.start()

    def run(self) -> None:
        with contextlib.suppress(*FAULTS), contextlib.closing(docker.from_env().api) as client:
            client.wait(self.container, timeout=None)
            self.ended = time.monotonic()


def start(client: Any, container: str) -> None:
    try:
        client.start(container)
    except APIError as error:
        if "could not select device driver" in str(error):
            fix = "Install the NVIDIA container toolkit, or use a division without GPUs"
            raise UserError("the engine cannot give a GPU to a container", fix) from error
        if error.status_code == 400:
            detail = f"the image's entry point cannot be started: {error.explanation}"
            raise CellFailure(FailureKind.BROKE_CONTRACT, detail) from error
        raise
