"""Memory of a whole process tree, metered and limited by the kernel: control groups, version 1 and 2."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path("/sys/fs/cgroup")
_V1 = ("memory", "pids", "cpu")
_CPU_PERIOD_US = 100_000


def is_oom(
    *, code: int, killed: bool, kills: int | None, peak: int | None, limit: int, flag: bool = False
) -> bool:
    """Whether the kernel killed for memory. `kills`: the kernel's own count; `flag`: the engine's word.

    An exit code of 137 is any SIGKILL, and an engine's flag may be wrong either way, so where the kernel's
    count says nothing each of them needs a peak near the limit; the flag stands alone only where there is no
    meter.
    """
    near = peak is not None and peak >= 0.95 * limit
    unmetered = kills is None and peak is None
    return bool(kills) or (flag and (near or unmetered)) or (code in (137, -9) and not killed and near)


def high_water(pid: int) -> int:
    """The most memory (bytes) that a process ever held; 0 if it is gone."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def tree_high_water(pid: int) -> int:
    """The same of the largest process among this one and those it started."""
    with contextlib.suppress(psutil.Error):
        return max(
            high_water(process.pid) for process in (psutil.Process(pid), *psutil.Process(pid).children(True))
        )
    return 0


class Cgroup:
    """One control group, at `path` below every hierarchy under `root`.

    `peak_bytes` and `oom_kills` hold what `sample()` saw so far and stay after the group is gone: an engine
    on systemd removes a group with its last process. Both are None until something could be read. `oom_kills`
    counts the processes that the kernel killed for memory in the group or below it.
    """

    def __init__(self, path: str, root: Path = ROOT) -> None:
        self.path, self.root = path.strip("/"), root
        self.peak_bytes: int | None = None
        self.oom_kills: int | None = None
        self._saw_peak_file = False
        if (root / "cgroup.controllers").is_file():
            self.version: int | None = 2
            self.folders = [root / self.path]
        else:
            self.folders = [root / name / self.path for name in _V1 if (root / name).is_dir()]
            self.version = 1 if (root / "memory").is_dir() else None

    @property
    def meter(self) -> str:
        """The meter's name; "sampled": a kernel before 5.19 keeps no peak in version 2."""
        if self.version == 2 and not (self.folders[0] / "memory.peak").exists() and not self._saw_peak_file:
            return "cgroup-v2-sampled"
        return f"cgroup-v{self.version}"

    def create(self, memory_bytes: int, pids: int, cpus: float) -> bool:
        """Make the group with its limits, swap off. False, and nothing left, where this process may not."""
        quota = str(int(cpus * _CPU_PERIOD_US))
        try:
            if self.version == 2:
                for folder in reversed(self.folders[0].relative_to(self.root).parents):
                    (self.root / folder).mkdir(exist_ok=True)
                    (self.root / folder / "cgroup.subtree_control").write_text("+memory +pids +cpu")
                limits = {
                    "memory.max": str(memory_bytes),
                    "memory.swap.max": "0",
                    "pids.max": str(pids),
                    "cpu.max": f"{quota} {_CPU_PERIOD_US}",
                }
            elif len(self.folders) == len(_V1):
                # The order of the last two matters: RAM and swap together may not be under RAM alone.
                limits = {
                    "cpu.cfs_period_us": str(_CPU_PERIOD_US),
                    "cpu.cfs_quota_us": quota,
                    "pids.max": str(pids),
                    "memory.limit_in_bytes": str(memory_bytes),
                    "memory.memsw.limit_in_bytes": str(memory_bytes),
                }
            else:
                return False
            for folder in self.folders:
                folder.mkdir(parents=True, exist_ok=True)
            for name, value in limits.items():
                self._write(name, value)
        except OSError:
            self.remove()
            return False
        return True

    def _write(self, name: str, value: str) -> None:
        folder = self.folders[0] if self.version == 2 else self.root / name.partition(".")[0] / self.path
        file = folder / name
        # A kernel without swap accounting has no such file, and nothing to switch off.
        if "swap" in name or "memsw" in name:
            if file.exists():
                file.write_text(value)
        else:
            file.write_text(value)

    def add(self, pid: int) -> None:
        """Put a process into the group. Raises OSError."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def sample(self) -> None:
        """Read the meters once; what cannot be read changes nothing."""
        if self.version is None:
            return
        memory = self.folders[0]
        if self.version == 1:
            peak = _number(memory / "memory.max_usage_in_bytes")
            # Version 1 counts a kill only in the victim's own group, which an engine puts below this one.
            kills = [
                _field(folder / "memory.oom_control", "oom_kill") for folder in (memory, *_below(memory))
            ]
        else:
            peak = _number(memory / "memory.peak")
            self._saw_peak_file |= peak is not None
            peak = _number(memory / "memory.current") if peak is None else peak
            kills = [_field(memory / "memory.events", "oom_kill")]
        if peak is not None:
            self.peak_bytes = max(peak, self.peak_bytes or 0)
        known = [count for count in kills if count is not None]
        if known:
            self.oom_kills = max(sum(known), self.oom_kills or 0)

    def pids(self) -> set[int]:
        """The processes in the group now."""
        found: set[int] = set()
        for folder in self.folders:
            with contextlib.suppress(OSError):
                found |= {int(line) for line in (folder / "cgroup.procs").read_text().split()}
        # The kernel writes 0 for a process outside this pid namespace, and kill(0) would mean ourselves.
        return found - {0}

    def kill(self, within_s: float = 5.0) -> bool:
        """Kill every process in the group and those they start meanwhile. False if some are left."""
        deadline = time.monotonic() + within_s
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def remove(self) -> None:
        """Remove the group and its empty sub-groups; a group that still holds a process stays."""
        folders = self.folders
        if self.version == 1:
            # An engine makes the group under every controller there is, not only under those limited here.
            folders = [hierarchy / self.path for hierarchy in self.root.iterdir() if hierarchy.is_dir()]
        for folder in folders:
            for group in (*_below(folder), folder):
                with contextlib.suppress(OSError):
                    group.rmdir()


def _below(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (entry for entry in folder.iterdir() if entry.is_dir())


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _field(file: Path, key: str) -> int | None:
    try:
        return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.split()[0] == key)
    except (OSError, ValueError, StopIteration, IndexError):
        return None
