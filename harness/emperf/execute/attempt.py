"""One attempt at a job: start the container, judge its end, take and check its output. Nothing else does so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from emperf.core.errors import CellFailure, FailureKind
from emperf.runtimes import ContainerJob, Outcome, Runtime
from emperf.training.__main__ import DIVERGED, HOOK, NO_ROOM, OUT_OF_MEMORY, UNUSABLE
from emperf.work import outputs

Shapes = Mapping[str, list[int]]


@dataclass(frozen=True)
class Left:
    """What a job left that ended well: the files taken, below `folder`."""

    folder: Path
    files: tuple[str, ...]
    outcome: Outcome


def attempt(
    runtime: Runtime,
    job: ContainerJob,
    into: Path,
    needed: str,
    expected: Shapes,
    *,
    on_tick: Callable[[float], None] | None = None,
    on_end: Callable[[Outcome], None] | None = None,
) -> Left:
    """Run the job and take its files into the folder `into`, the file `needed` among them.

    `expected`: tensor name -> shape of all weights. `on_end` is told of every outcome, a bad one too. Raises
    CellFailure for a job that did not end well or left something else; of kind MACHINE where the machine is at fault.
    """
    outcome = runtime.run(job, on_tick)
    if on_end:
        on_end(outcome)
    judge_exit(outcome, job)
    taken = outputs.take(runtime.collect(job), into, job.limits.output_bytes, needed)
    for name in taken:
        if name.endswith(".safetensors"):
            outputs.check_weights(into / name, dict(expected))
    return Left(into, tuple(taken), outcome)


def judge_exit(outcome: Outcome, job: ContainerJob) -> None:
    """Raises the CellFailure that the container's end amounts to, if any."""
    lines = outcome.log_tail.strip().splitlines()
    last = lines[-1][:300] if lines else "it printed nothing"
    limit = job.limits.memory_bytes / 1e9
    if outcome.timed_out:
        raise CellFailure(
            FailureKind.TIMED_OUT, f"not done after {job.limits.wall_s:.0f} s; last line: {last}"
        )
    if outcome.oom_killed:
        raise CellFailure(FailureKind.OUT_OF_MEMORY, f"needed more than the division's {limit:.1f} GB")
    if outcome.exit_code == OUT_OF_MEMORY:
        raise CellFailure(FailureKind.OUT_OF_MEMORY, last)
    if outcome.exit_code == DIVERGED:
        raise CellFailure(FailureKind.DIVERGED, last)
    if outcome.exit_code == NO_ROOM:
        detail = (
            "the container found no room for its output; free disk space where the engine keeps its volumes"
        )
        raise CellFailure(FailureKind.MACHINE, detail)
    if outcome.exit_code in (UNUSABLE, HOOK):
        raise CellFailure(FailureKind.BROKE_CONTRACT, last)
    if outcome.exit_code != 0:
        raise CellFailure(
            FailureKind.BROKE_CONTRACT, f"the container exited with {outcome.exit_code}; last line: {last}"
        )
