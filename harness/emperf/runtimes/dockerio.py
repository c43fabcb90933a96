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

from emperf.core.errors import CellFailure, FailureKind, UserError
from emperf.runtimes import OutputFile
from emperf.runtimes.tars import Entry, tar_stream, tar_tree

FAULTS = (DockerException, requests.RequestException, tarfile.TarError, OSError)
FILLED = "emperf.filled"
_PLACE = "emperf-volume"


@contextlib.contextmanager
def engine(timeout_s: int = 300) -> Iterator[Any]:
    """The engine's interface; an answer may take `timeout_s`. Its failures become CellFailure(MACHINE)."""
    try:
        with contextlib.closing(docker.from_env(timeout=timeout_s).api) as client:
            yield client
    except FAULTS as error:
        raise CellFailure(FailureKind.MACHINE, f"the container engine failed: {error}") from error


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
    # Not client.get_archive: it keeps the answer to itself, and an answer that is not read to its end must be
    # closed, or the engine goes on sending and keeps the container.
    url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
    with contextlib.ExitStack() as stack:
        answer = stack.enter_context(
            client.get(url, params={"path": path}, stream=True, timeout=client.timeout)
        )
        answer.raise_for_status()
        source = io.BufferedReader(_Pieces(answer.iter_content(1 << 20)), 1 << 20)
        tar = stack.enter_context(tarfile.open(fileobj=source, mode="r|", bufsize=1 << 20))
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
        raise


def state_of(
    client: Any, container: str, within_s: float, tick: Callable[[], None]
) -> tuple[dict[str, Any], bool]:
    """The container's state, and whether the engine was away meanwhile, which it may be for `within_s`.

    `tick` is called four times a second while it is. Raises CellFailure(MACHINE).
    """
    deadline, away = time.monotonic() + within_s, False
    while True:
        try:
            return dict(client.inspect_container(container)["State"]), away
        except NotFound:
            raise CellFailure(FailureKind.MACHINE, f"somebody removed the container {container}") from None
        except FAULTS as error:
            away = True
            if time.monotonic() > deadline:
                detail = f"the engine went away and did not come back in {within_s:.0f} s ({error})"
                raise CellFailure(FailureKind.MACHINE, detail) from error
            time.sleep(0.25)
            tick()
