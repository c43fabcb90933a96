"""What outlives the harness: killed itself, by SIGKILL or for memory, it cannot stop the jobs that it started.

A small process of its own waits for the harness's end, then kills the containers and processes that carry its mark.
They are only stopped; the next session's `sweep` removes them.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from emperf.core.errors import CellFailure, FailureKind

LABEL, VARIABLE, JOB = "emperf.harness", "EMPERF_HARNESS", "EMPERF_JOB"
# A start that the harness asked for with its last breath may still be under way.
_INSIST_S, _AGAIN_S = 10.0, 0.5


def mark() -> str:
    """The mark of this process, for all that it starts; from the first call on, a watchdog looks after them.

    Containers carry it as LABEL, processes as VARIABLE. Raises CellFailure(MACHINE) if there can be no watchdog.
    """
    return _watched(os.getpid(), os.environ.get("DOCKER_HOST", ""))


@functools.cache
def _watched(pid: int, engine: str) -> str:
    own = uuid.uuid4().hex
    child = subprocess.Popen(
        [sys.executable, "-m", "emperf.runtimes.watchdog", str(pid), own],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert child.stdout
    with child.stdout as said:
        if not said.readline():
            detail = "the watchdog, which stops what a killed harness leaves running, did not start"
            raise CellFailure(FailureKind.MACHINE, detail)
    atexit.register(_dismiss, child, pid)
    return own


def _dismiss(child: subprocess.Popen[bytes], pid: int) -> None:
    """A harness that ends by itself has stopped its jobs. A fork of it has no say."""
    if os.getpid() == pid:
        child.kill()
        child.wait()


def main(pid: int, own: str) -> None:
    """Wait for the end of the harness `pid`, then stop what carries the mark `own`."""
    harness = os.pidfd_open(pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("watching", flush=True)
    select.select([harness], [], [])
    deadline = time.monotonic() + _INSIST_S
    while time.monotonic() < deadline:
        kill_processes(own)
        kill_containers(own)
        time.sleep(_AGAIN_S)


def kill_containers(own: str) -> None:
    """An engine that does not answer is asked again at the next turn."""
    import docker

    from emperf.runtimes.dockerio import FAULTS

    with contextlib.suppress(*FAULTS), contextlib.closing(docker.from_env(timeout=10).api) as client:
        for container in client.containers(filters={"label": f"{LABEL}={own}"}):
            with contextlib.suppress(*FAULTS):
                client.kill(container["Id"])


def kill_processes(own: str) -> None:
    """With each marked process its whole group and its job's control group: others there may have lost the mark."""
    import psutil

    from emperf.meters.cgroup import Cgroup

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(VARIABLE) == own:
                os.killpg(os.getpgid(process.pid), signal.SIGKILL)
                Cgroup(f"emperf/process-{Path(environment[JOB]).name}").kill()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
