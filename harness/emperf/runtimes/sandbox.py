"""The walls around a submission, a container's flags or bubblewrap's arguments, and its output."""

from __future__ import annotations

import contextlib
import math
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from emperf.core.limits import Limits
from emperf.runtimes.gpus import device_ids
from emperf.runtimes.starts import RUNNER

TICK_S = 0.25
LOG_BYTES = 1 << 20
# NCCL's processes talk through shared memory; an engine gives 64 MB, of which a few channels take all.
_SHARED_BYTES = 1 << 30
_CPU_GRACE_S = 60
# Made anew inside, or left out: /run holds the sockets of the machine's services, and a socket that is
# mounted read-only still answers.
_NOT_BOUND = {"proc", "dev", "tmp", "run", "in", "out", "submission", "trainer"}


def container_walls(
    client: Any, limits: Limits, mounts: Sequence[Mount], cgroup_parent: str, gpus: Sequence[int]
) -> dict[str, Any]:
    """The host configuration of a submission's container."""
    ulimits = {"core": 0, "nofile": 4096, "fsize": limits.output_bytes}
    # No clock of the harness's outlives the container that the harness may itself be in. No process can use more than
    # this within the wall.
    ulimits["cpu"] = math.ceil(limits.wall_s * limits.cpus) + _CPU_GRACE_S
    devices = [DeviceRequest(device_ids=device_ids(gpus), capabilities=[["gpu"]])] if gpus else []
    return dict(
        client.create_host_config(
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            ipc_mode="private",
            init=True,
            pids_limit=limits.pids,
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,
            nano_cpus=int(limits.cpus * 1e9),
            ulimits=[Ulimit(name=name, soft=value, hard=value) for name, value in ulimits.items()],
            # A full file is begun anew, so one alone may hold a single line; short lines are stored four times as long.
            log_config=LogConfig(type="json-file", config={"max-size": "1m", "max-file": "5"}),
            cgroup_parent=cgroup_parent,
            # exec: kernels that are compiled at run time live in /tmp; /out allows it anyway.
            tmpfs={"/tmp": f"size={limits.tmp_bytes},mode=1777,nosuid,nodev,exec"},
            mounts=list(mounts),
            device_requests=devices,
            shm_size=shared_bytes(limits, gpus) or None,
        )
    )


def shared_bytes(limits: Limits, gpus: Sequence[int]) -> int:
    """The room in /dev/shm, in bytes, that a job on several GPUs gets; it counts as the job's memory. 0: the usual."""
    return min(_SHARED_BYTES, limits.memory_bytes // 2) if len(gpus) > 1 else 0


def process_walls(
    hide: Sequence[Path],
    tmp_bytes: int,
    readable: Mapping[str, Path],
    out: Path | None = None,
    gpus: bool = False,
    shared_bytes: int = 0,
) -> list[str]:
    """The command that runs the command after it behind walls.

    No network, no other processes, no capabilities; this machine's files read-only, without `hide` (folders,
    seen empty) and /run; /tmp of `tmp_bytes`, in memory. `readable` maps a path inside to a file or folder;
    `out` is mounted as /out. `shared_bytes`: the size of /dev/shm, 0 for none that can be written.
    """
    # The job's own PATH may not be the harness's.
    command = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--uid",
        str(RUNNER),
        "--gid",
        str(RUNNER),
    ]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    # The root is put together from its entries: /in and /out could not be made in a read-only one.
    for entry in sorted(Path("/").iterdir()):
        if entry.is_symlink():
            command += ["--symlink", str(entry.readlink()), str(entry)]
        elif entry.is_dir() and entry.name not in _NOT_BOUND:
            command += ["--ro-bind", str(entry), str(entry)]
    command += ["--proc", "/proc", "--dev", "/dev", "--size", str(tmp_bytes), "--tmpfs", "/tmp"]
    if gpus:
        for device in sorted(Path("/dev").glob("nvidia*")):
            command += ["--dev-bind", str(device), str(device)]
    if shared_bytes:
        command += ["--size", str(shared_bytes), "--tmpfs", "/dev/shm"]
    hidden = [folder for folder in hide if folder.is_dir()]
    needed = [
        folder
        for folder in (Path(sys.base_prefix), Path(sys.prefix))
        if any(folder.is_relative_to(over) for over in (Path("/tmp"), *hidden))
    ]
    for folder in hidden:
        command += ["--tmpfs", str(folder)]
    for folder in needed:
        command += ["--ro-bind", str(folder), str(folder)]
    again = [
        folder for folder in hidden if any(folder.is_relative_to(over) and folder != over for over in needed)
    ]
    for folder in again:
        command += ["--tmpfs", str(folder)]
    for inside, source in readable.items():
        command += ["--ro-bind", str(source), inside]
    if out is not None:
        command += ["--bind", str(out), "/out", "--chdir", "/out"]
    for folder in (*hidden, Path("/dev"), Path("/")):
        command += ["--remount-ro", str(folder)]
    return [*command, "--"]


def why_no_walls() -> str:
    """Empty if bubblewrap works here, else why not."""
    if shutil.which("bwrap") is None:
        return "bwrap is not installed"
    try:
        done = subprocess.run(
            [*process_walls([], 1 << 20, {}), "/bin/sh", "-c", ":"],
            check=False,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"bwrap ended with {done.returncode}"


def follow(
    child: subprocess.Popen[bytes], limit_s: float, began: float, on_tick: Callable[[float], None]
) -> tuple[bytes, float, bool]:
    """The last MiB of its output, its wall time (s), and whether it is still running at the limit."""
    assert child.stdout
    pipe, ended = child.stdout.fileno(), os.pidfd_open(child.pid)
    os.set_blocking(pipe, False)
    poller = select.poll()
    for descriptor in (pipe, ended):
        poller.register(descriptor, select.POLLIN)
    tail, next_tick = bytearray(), began + TICK_S
    try:
        while True:
            ready = {
                descriptor for descriptor, _ in poller.poll(max(0.0, next_tick - time.monotonic()) * 1000)
            }
            elapsed = time.monotonic() - began
            if pipe in ready:
                piece = b""
                with contextlib.suppress(BlockingIOError):
                    piece = os.read(pipe, 1 << 16)
                    if not piece:
                        poller.unregister(pipe)
                tail += piece
                if len(tail) > 2 * LOG_BYTES:
                    del tail[:-LOG_BYTES]
            # One more read after the end takes all that a pipe can hold.
            if ended in ready or elapsed > limit_s:
                with contextlib.suppress(BlockingIOError):
                    tail += os.read(pipe, 1 << 20)
                return bytes(tail[-LOG_BYTES:]), elapsed, ended not in ready
            if time.monotonic() >= next_tick:
                next_tick += TICK_S
                on_tick(elapsed)
    finally:
        os.close(ended)


def clean_log(raw: bytes) -> str:
    """The last MiB of a program's output as text that is safe to show in a terminal."""
    text = raw[-LOG_BYTES:].decode("utf-8", "replace").replace("\r", "\n")
    return "".join(char for char in text if char.isprintable() or char in "\n\t")
