"""How the harness ends: asked politely, or killed, no job of its goes on."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import docker
import psutil
import pytest
from tests.runtimes.conftest import RUNTIMES, Bench

from emperf.core.errors import CellFailure
from emperf.runtimes import signals, watchdog

_RUN = (
    "import sys, pickle; runtime, job = pickle.load(sys.stdin.buffer);"
    "runtime.run(job, lambda elapsed: print(elapsed, flush=True))"
)
_COMMAND = """
import pickle, sys
from emperf.cli.app import main
@main.command()
def job():
    runtime, job = pickle.load(sys.stdin.buffer)
    runtime.run(job, lambda elapsed: print(elapsed, flush=True))
main(["job"])
"""
FORKS = "if not os.fork():\n    os.setsid()\nwhile True: time.sleep(0.1)"


def started(program: str, bench: Bench, run_id: str) -> subprocess.Popen[bytes]:
    """A harness of its own, its job running."""
    job = bench.job(FORKS, run_id=run_id)
    harness = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    harness.stdin.write(pickle.dumps((bench.runtime, job)))
    harness.stdin.close()
    harness.stdin = None
    assert harness.stdout.readline(), harness.stderr.read()
    time.sleep(0.5)
    return harness


def running(bench: Bench) -> list[object]:
    """What of the last job still runs."""
    job = bench.jobs[-1]
    if bench.runtime.name == "docker":
        return docker.from_env().containers.list(filters={"label": f"emperf.job={job.job_id}"})
    mark, found = str(bench.runtime.work / job.run_id / job.job_id), []
    for process in psutil.process_iter():
        try:
            if process.environ().get(watchdog.JOB) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def gone(bench: Bench, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while running(bench) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not running(bench)


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_a_job_ends_soon_after_its_harness_was_killed(bench: Bench) -> None:
    harness = started(_RUN, bench, "killed")
    assert running(bench)
    harness.kill()
    harness.wait()
    assert gone(bench, 8)
    # Stopped, not removed: that is the next session's.
    assert bench.runtime.sweep("killed") == (3 if bench.runtime.name == "docker" else 1)


@pytest.mark.parametrize(
    ("bench", "how"),
    [
        pytest.param("docker", signal.SIGTERM, marks=pytest.mark.docker),
        pytest.param("docker", signal.SIGINT, marks=pytest.mark.docker),
        ("sandbox", signal.SIGHUP),
        ("plain", signal.SIGTERM),
    ],
    indirect=["bench"],
)
def test_a_polite_signal_ends_like_ctrl_c(bench: Bench, how: signal.Signals) -> None:
    # A shell that runs the tests in the background leaves signals ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        harness = started(_COMMAND, bench, "asked")
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGHUP, hang_up)
    harness.send_signal(how)
    _, err = harness.communicate(timeout=60)
    assert harness.returncode == 128 + how
    assert b"Run the same command to go on" in err and b"Traceback" not in err
    assert running(bench) == []
    assert bench.runtime.sweep("asked") == (0 if bench.runtime.name == "docker" else 1)


def test_a_harness_that_ends_by_itself_dismisses_its_watchdog() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from emperf.runtimes import watchdog; print(watchdog.mark() == watchdog.mark())"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "True\n"
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "emperf.runtimes.watchdog" in (process.info["cmdline"] or ()) and process.ppid() == 1
    ]
    assert left == []


def test_signals_are_as_before_afterwards_and_an_ignored_one_stays_ignored() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(signals.Ended) as ended, signals.end_like_interrupt():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        assert signals.exit_code(ended.value) == 143
        assert signals.exit_code(KeyboardInterrupt()) == 130
        assert signal.getsignal(signal.SIGTERM) is before[0]
    finally:
        signal.signal(signal.SIGHUP, before[1])


def test_a_second_signal_does_not_cut_the_clearing_up_short() -> None:
    cleared = False
    with pytest.raises(signals.Ended), signals.end_like_interrupt():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
            cleared = True
    assert cleared


def test_a_watchdog_that_cannot_start_is_the_machines_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/another.sock")
    with pytest.raises(CellFailure, match="watchdog"):
        watchdog.mark()
