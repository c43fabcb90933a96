"""Running a submission without an engine, for development: a sandboxed process, or a plain one.

Its results are never certified: it keeps honest code inside its limits and makes no promise about hostile
code.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from emperf.core import digests
from emperf.core.errors import CellFailure, FailureKind
from emperf.core.sources import PACKAGE
from emperf.meters.cgroup import ROOT, Cgroup, high_water, is_oom, tree_high_water
from emperf.runtimes import ContainerJob, Outcome, OutputFile, trainer, watchdog
from emperf.runtimes.images import ENV
from emperf.runtimes.sandbox import clean_log, follow, process_walls, shared_bytes, why_no_walls
from emperf.runtimes.walk import remove_tree, walk

_TRAINER = "/trainer"


def _not_counted(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if not digests.counts(Path(name))}


class ProcessRuntime:
    """Runs each job as a process, its folders below `work`.

    `hide`: folders that a sandboxed job sees empty (the benchmark's answers, the store). `command`: what to
    run instead of the trainer, with "{in}", "{out}" and "{submission}" for the folders. `sandbox`: use
    bubblewrap where it works.
    """

    name = "process"
    certifiable = False

    def __init__(
        self,
        work: Path,
        hide: Sequence[Path] = (),
        command: Sequence[str] | None = None,
        sandbox: bool = True,
        cgroup_root: Path = ROOT,
    ) -> None:
        reference = (sys.executable, "-m", "emperf.training", "--in", "{in}", "--out", "{out}")
        self.work, self.hide = work.absolute(), [path.resolve() for path in hide]
        self.command = tuple(command or (*reference, "--submission", "{submission}"))
        self.cgroup_root = cgroup_root
        self.no_sandbox = why_no_walls() if sandbox else "switched off"

    def describe(self) -> dict[str, Any]:
        """What isolates the jobs, and, in `missing`, what does not."""
        limited = self._group("probe").create(64 << 20, 8, 1.0)
        self._group("probe").remove()
        missing = ["certifiable isolation: hostile code is not contained"]
        if self.no_sandbox:
            missing.append(
                f"no bubblewrap ({self.no_sandbox}): the network and this machine's files are open"
            )
        if not limited:
            missing.append("no writable cgroup: memory, processes and CPUs have no limit")
        walls = "plain process"
        if not self.no_sandbox:
            walls = "bubblewrap: no network, read-only root, no capabilities"
        return {
            "runtime": self.name,
            "kernel": platform.release(),
            "isolation": walls,
            "limits": "cgroup" if limited else "rlimits",
            "missing": missing,
        }

    def run(self, job: ContainerJob, on_tick: Callable[[float], None] | None = None) -> Outcome:
        """As the protocol says. The program's folders stay until `cleanup`."""
        self.cleanup(job)
        try:
            self._place(job)
        except OSError as error:
            raise CellFailure(
                FailureKind.MACHINE, f"cannot place the inputs of {job.job_id}: {error}"
            ) from error
        limits, group = job.limits, self._group(job.job_id)
        grouped = group.create(limits.memory_bytes, limits.pids, limits.cpus)
        sampled = 0
        # The kernel counts the harness's own memory, as it is when it starts the program, as the program's.
        inherited = high_water(os.getpid())

        def tick(elapsed: float) -> None:
            nonlocal sampled
            sampled = max(sampled, 0 if grouped else tree_high_water(child.pid))
            if on_tick:
                on_tick(elapsed)

        # The shell waits for a line, so that every limit is in force before the program's first instruction.
        gate = ["/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "sh", *self._argv(job)]
        child = subprocess.Popen(
            gate, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._env(job),
            cwd=self._folder(job) / "out", start_new_session=True,
        )  # fmt: skip
        try:
            assert child.stdin and child.stdout
            for kind, value in (
                (resource.RLIMIT_CORE, 0),
                (resource.RLIMIT_NOFILE, 4096),
                (resource.RLIMIT_FSIZE, limits.output_bytes),
            ):
                resource.prlimit(child.pid, kind, (value, value))
            if grouped:
                group.add(child.pid)
            child.stdin.write(b"\n")
            child.stdin.close()
            began = time.monotonic()
            tail, wall, timed_out = follow(child, limits.wall_s, began, tick)
        finally:
            # Before the child is reaped: until then its number, the group's too, is nobody else's.
            self._end(child.pid, group, self._folder(job))
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        group.sample()
        group.remove()
        peak, meter = group.peak_bytes, group.meter
        if not grouped:
            largest = usage.ru_maxrss * 1024
            peak, meter = (largest if largest > inherited else sampled or None), "rusage"
        return Outcome(
            # A shell's way to say "killed by a signal", which an engine's init follows too.
            exit_code=child.returncode if child.returncode >= 0 else 128 - child.returncode,
            wall_s=wall,
            timed_out=timed_out,
            oom_killed=is_oom(
                code=child.returncode,
                killed=timed_out,
                kills=group.oom_kills,
                peak=peak,
                limit=limits.memory_bytes,
            ),
            peak_memory_bytes=peak,
            memory_meter=meter,
            log_tail=clean_log(tail),
            facts={"cgroup_oom_kills": group.oom_kills, "user_s": usage.ru_utime, "system_s": usage.ru_stime},
        )

    def collect(self, job: ContainerJob) -> Iterator[OutputFile]:
        """As the protocol says."""
        yield from walk(self._folder(job) / "out")

    def cleanup(self, job: ContainerJob) -> None:
        """Kill what is left of the job and remove its folders and control group."""
        self._clear(self._folder(job))

    def sweep(self, run_id: str) -> int:
        """Clear every job of a killed run; how many there were."""
        left = list((self.work / run_id).glob("*"))
        for folder in left:
            self._clear(folder)
        shutil.rmtree(self.work / run_id, ignore_errors=True)
        return len(left)

    def _folder(self, job: ContainerJob) -> Path:
        return self.work / job.run_id / job.job_id

    def _trainer(self) -> Path:
        """A folder with what the trainer runs of this package and nothing else, as an image has it; made once."""
        folder = self.work / "trainer" / digests.short(trainer.digest())
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            half = Path(tempfile.mkdtemp(dir=folder.parent))
            trainer.copy_trainer(half)
            compileall.compile_dir(half, quiet=1, stripdir=str(half), prependdir=str(folder))
            half.chmod(0o755)
            # Another harness may have been first.
            with contextlib.suppress(OSError):
                half.rename(folder)
        return folder

    def _group(self, job_id: str) -> Cgroup:
        return Cgroup(f"emperf/process-{job_id}", self.cgroup_root)

    def _place(self, job: ContainerJob) -> None:
        folder = self._folder(job)
        for name in ("in", "out", "tmp"):
            (folder / name).mkdir(parents=True)
        for name, content in job.inputs.items():
            target = folder / "in" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            elif content.is_dir():
                shutil.copytree(content, target)
            else:
                shutil.copyfile(content, target)
        # A copy, without what is no part of its digest.
        shutil.copytree(job.submission, folder / "submission", ignore=_not_counted)
        for name, (_, source) in job.shared.items():
            if self.no_sandbox:
                (folder / "in" / name).symlink_to(source.absolute())
            else:
                (folder / "in" / name).mkdir(parents=True)

    def _argv(self, job: ContainerJob) -> list[str]:
        folder = self._folder(job)
        if self.no_sandbox:
            names = {
                "{in}": f"{folder}/in",
                "{out}": f"{folder}/out",
                "{submission}": f"{folder}/submission",
            }
            return [names.get(part, part) for part in self.command]
        readable = {"/in": folder / "in", "/submission": folder / "submission", _TRAINER: self._trainer()}
        readable |= {f"/in/{name}": source.absolute() for name, (_, source) in job.shared.items()}
        names = {"{in}": "/in", "{out}": "/out", "{submission}": "/submission"}
        hide = [*self.hide, self.work, PACKAGE]
        room = shared_bytes(job.limits, job.gpus)
        front = process_walls(hide, job.limits.tmp_bytes, readable, folder / "out", bool(job.gpus), room)
        return [*front, *(names.get(part, part) for part in self.command)]

    def _env(self, job: ContainerJob) -> dict[str, str]:
        scratch = f"{self._folder(job)}/tmp" if self.no_sandbox else "/tmp"
        return {
            **ENV,
            "HOME": scratch,
            "TMPDIR": scratch,
            "PYTHONPATH": str(self._trainer()) if self.no_sandbox else _TRAINER,
            # CUDA's own order is by speed; the numbers are the driver's.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, job.gpus)),
            watchdog.JOB: str(self._folder(job)),
            watchdog.VARIABLE: watchdog.mark(),
        }

    def _end(self, group_id: int | None, group: Cgroup, folder: Path) -> None:
        if group_id is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group_id, signal.SIGKILL)
        group.kill()
        # A sandbox takes every process with it; one that left a plain session is known by its environment.
        for process in psutil.process_iter() if self.no_sandbox else ():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(watchdog.JOB) == str(folder):
                    process.kill()

    def _clear(self, folder: Path) -> None:
        group = self._group(folder.name)
        self._end(None, group, folder)
        group.remove()
        remove_tree(folder)
