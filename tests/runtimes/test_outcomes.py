"""What the host says of a run: exit code, clock, memory, and who is to blame."""

from __future__ import annotations

import time

import pytest
from tests.runtimes.conftest import RUNTIMES, Bench

from emperf.meters.cgroup import is_oom
from emperf.runtimes.sandbox import LOG_BYTES

LIMIT = 128 << 20


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_exit_code_and_log(bench: Bench) -> None:
    outcome = bench.run(
        r"""
        print("first"); sys.stderr.write("\x1b[31mred\x07\r50%\r100%\n"); sys.stderr.flush()
        print("a\tb"); raise SystemExit(7)
        """
    )
    assert (outcome.exit_code, outcome.timed_out, outcome.oom_killed) == (7, False, False)
    assert "first" in outcome.log_tail
    assert "a\tb" in outcome.log_tail
    assert "[31mred\n50%\n100%" in outcome.log_tail
    assert "\x1b" not in outcome.log_tail


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_a_flood_of_output_keeps_the_end_only(bench: Bench) -> None:
    outcome = bench.run("for number in range(200_000): print(number, 'x' * 20)\nprint('the end')")
    assert outcome.exit_code == 0
    assert 0.9 * LOG_BYTES < len(outcome.log_tail) <= LOG_BYTES
    assert outcome.log_tail.endswith("the end\n")


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_the_host_owns_the_clock(bench: Bench) -> None:
    ticks: list[float] = []
    job = bench.job("time.sleep(1.5)")
    outcome = bench.runtime.run(job, ticks.append)
    assert 1.5 <= outcome.wall_s < 2.5
    assert 4 <= len(ticks) <= 10
    assert ticks == sorted(ticks)
    if bench.runtime.name == "docker":
        assert abs(outcome.facts["engine_wall_s"] - outcome.wall_s) < 0.5


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_a_hang_is_killed_with_everything_it_started(bench: Bench) -> None:
    outcome = bench.run(
        """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if not os.fork():
            os.setsid()
            while True:
                open(OUT + "/beat", "a").write("x")
                time.sleep(0.05)
        time.sleep(600)
        """,
        wall_s=1.0,
    )
    assert outcome.timed_out
    assert not outcome.oom_killed
    assert 1.0 <= outcome.wall_s < 3

    def beats() -> int:
        return next(entry.size for entry in bench.runtime.collect(bench.jobs[-1]) if entry.path == "beat")

    before = beats()
    assert before > 5
    time.sleep(0.5)
    assert beats() == before


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_what_a_program_leaves_running_dies_with_it(bench: Bench) -> None:
    outcome = bench.run(
        """
        if not os.fork():
            os.setsid()
            if not os.fork():
                while True:
                    open(OUT + "/beat", "a").write("x")
                    time.sleep(0.05)
            os._exit(0)
        time.sleep(0.5)
        """
    )
    assert (outcome.exit_code, outcome.timed_out) == (0, False)
    sizes = []
    for _ in range(2):
        sizes += [entry.size for entry in bench.runtime.collect(bench.jobs[-1]) if entry.path == "beat"]
        time.sleep(0.3)
    assert sizes[0] == sizes[1] > 0


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_peak_memory_is_of_the_whole_job(bench: Bench) -> None:
    bench.needs_cgroup()
    outcome = bench.run(
        """
        child = os.fork()
        held = bytearray(40 << 20)
        if not child:
            time.sleep(0.5); os._exit(0)
        os.wait()
        """,
        memory_bytes=LIMIT,
    )
    assert outcome.exit_code == 0
    assert outcome.memory_meter.startswith("cgroup-v")
    assert 80 << 20 < outcome.peak_memory_bytes < LIMIT


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_a_memory_hog_is_out_of_memory(bench: Bench) -> None:
    bench.needs_cgroup()
    outcome = bench.run("held = []\nwhile True: held.append(bytearray(4 << 20))", memory_bytes=LIMIT)
    assert outcome.oom_killed
    assert outcome.exit_code == 137
    assert not outcome.timed_out
    # The group above the container's own also holds the engine's helper that starts it.
    assert 0.9 * LIMIT < outcome.peak_memory_bytes < 1.02 * LIMIT


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_a_killed_child_is_out_of_memory_though_all_went_well(bench: Bench) -> None:
    bench.needs_cgroup()
    outcome = bench.run(
        """
        if not os.fork():
            held = []
            while True: held.append(bytearray(4 << 20))
        _, status = os.wait()
        assert os.WTERMSIG(status) == 9
        time.sleep(0.6)
        """,
        memory_bytes=LIMIT,
    )
    assert outcome.exit_code == 0, outcome.log_tail
    assert outcome.oom_killed


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_code_137_alone_is_not_out_of_memory(bench: Bench) -> None:
    outcome = bench.run("os.kill(os.getpid(), 9)")
    assert outcome.exit_code == 137
    assert not outcome.oom_killed


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_ctrl_c_leaves_nothing(bench: Bench) -> None:
    def interrupt(elapsed: float) -> None:
        if elapsed > 0.5:
            raise KeyboardInterrupt

    job = bench.job("time.sleep(60)", run_id="interrupted")
    with pytest.raises(KeyboardInterrupt):
        bench.runtime.run(job, interrupt)
    assert bench.runtime.sweep("interrupted") == (0 if bench.runtime.name == "docker" else 1)


@pytest.mark.parametrize(
    ("oom", "facts"),
    [
        (True, {"code": 0, "kills": 1, "peak": 10}),
        (True, {"code": 137, "kills": None, "peak": 99}),
        (True, {"code": 137, "kills": 0, "peak": 99}),
        (True, {"code": 0, "kills": 0, "peak": 99, "flag": True}),
        (True, {"code": 0, "kills": None, "peak": None, "flag": True}),
        (False, {"code": 137, "kills": None, "peak": None}),
        (False, {"code": 137, "kills": 0, "peak": 50}),
        (False, {"code": 137, "kills": 0, "peak": 99, "killed": True}),
        (False, {"code": 1, "kills": 0, "peak": 99}),
        (False, {"code": 1, "kills": 0, "peak": 50, "flag": True}),
    ],
)
def test_out_of_memory_needs_more_than_one_word(oom: bool, facts: dict[str, object]) -> None:
    assert is_oom(**{"killed": False, "limit": 100, **facts}) is oom
