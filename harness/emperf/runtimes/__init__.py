"""How a submission's container is run: the one protocol that both runtimes keep.

A runtime takes a `ContainerJob`, runs it inside its limits, owns the clock and the memory meter, and gives back an
`Outcome` and, through `collect`, the files that the container left, as a stream of plain facts: nothing is followed,
executed or unpickled. What the files mean is decided by `emperf.work.outputs`, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from emperf.core.limits import Limits


@dataclass(frozen=True)
class ContainerJob:
    """One container to run.

    `inputs` maps a path below /in to its content: bytes (written as a file) or a Path on the harness's side (a file or
    a folder, copied in). `shared` maps a path below /in to (digest, folder): large read-only trees, such as the model,
    that a runtime may place once and reuse for every job with the same digest. `image` is the submission's image
    (docker runtime); `submission` its folder (process runtime). `gpus` lists physical device indices
    (`emperf.runtimes.gpus`), empty for none.
    """

    job_id: str
    run_id: str
    image: str | None
    submission: Path
    limits: Limits
    inputs: Mapping[str, bytes | Path]
    shared: Mapping[str, tuple[str, Path]] = field(default_factory=dict)
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What the host saw. `wall_s`: start of the main process to its exit, host clock, seconds.

    `peak_memory_bytes` is None where no meter could be read; `memory_meter` names the meter ("cgroup-v1",
    "cgroup-v2", "rusage": the largest process only). `oom_killed` if the kernel killed any process of the job for
    memory. `log_tail`: stdout and stderr together, the last MiB of them, control characters removed: kept for people,
    never parsed.
    """

    exit_code: int
    wall_s: float
    timed_out: bool
    oom_killed: bool
    peak_memory_bytes: int | None
    memory_meter: str
    log_tail: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputFile:
    """One entry the container left below /out. `kind`: "file", "dir", "symlink" or "other".

    `path` is relative, POSIX, and may hold hostile names. `open` gives a stream of exactly `size` bytes and is valid
    until the next entry is asked for; it is None for anything but a plain file.
    """

    path: str
    kind: str
    size: int
    open: Callable[[], IO[bytes]] | None


class Runtime(Protocol):
    """`docker` (certifiable) or `process` (development only)."""

    name: str
    certifiable: bool

    def describe(self) -> dict[str, Any]:
        """Facts for result.json: versions, isolation in force, what is missing."""
        ...

    def run(self, job: ContainerJob, on_tick: Callable[[float], None] | None = None) -> Outcome:
        """Run to the end or to the limit. `on_tick(elapsed seconds)` is called about four times a second.

        Raises `CellFailure(MACHINE)` when the machine, not the job, failed (engine gone, disk full). On
        KeyboardInterrupt the container is killed and removed before the exception goes on.
        """
        ...

    def collect(self, job: ContainerJob) -> Iterator[OutputFile]:
        """The entries below /out of a finished job, the container being stopped, in no certain order."""
        ...

    def cleanup(self, job: ContainerJob) -> None:
        """Remove what `run` left (container, volumes, folders). Safe to call twice."""
        ...

    def sweep(self, run_id: str) -> int:
        """Remove leftovers of a killed harness that carried `run_id`; how many there were."""
        ...
