"""What only the process runtime does: hidden folders, an importable trainer, and telling what it lacks."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.runtimes.conftest import Bench, process_runtime

import emperf
from emperf.runtimes.process import ProcessRuntime
from emperf.runtimes.sandbox import why_no_walls

PROCESS = ["sandbox", "plain"]


@pytest.fixture
def walls() -> None:
    if reason := why_no_walls():
        pytest.skip(f"no sandbox: {reason}")


@pytest.mark.usefixtures("walls")
def test_hidden_folders_are_empty_and_the_rest_works(tmp_path: Path) -> None:
    secret = Path(__file__).parents[2] / "benchmark"
    assert any(secret.iterdir())
    bench = Bench(
        process_runtime(tmp_path / "work", True, hide=[secret, tmp_path / "absent"]), tmp_path, None
    )
    outcome = bench.run(
        f"""
        import emperf
        tell(
            secret=os.listdir({str(secret)!r}), write=refused(open, {str(secret / "x")!r}, "w"),
            work=os.listdir({str(tmp_path / "work")!r}), package=emperf.__name__,
            dev=refused(open, "/dev/new", "w"), run=os.path.exists("/run"),
        )
        """
    )
    assert outcome.exit_code == 0, outcome.log_tail
    told = bench.told()
    assert told["secret"] == []
    assert told["write"] in ("EROFS", "EACCES")
    assert told["work"] == []
    assert told["package"] == "emperf"
    assert told["dev"] in ("EROFS", "EACCES")
    assert not told["run"]


@pytest.mark.usefixtures("walls")
def test_a_hidden_folder_may_hold_the_package_and_the_interpreter(tmp_path: Path) -> None:
    root = Path(sys.prefix).parent
    needed = [Path(sys.prefix), Path(emperf.__file__).parent]
    bench = Bench(process_runtime(tmp_path / "work", True, hide=[root]), tmp_path, None)
    bench.run(f"import emperf, docker; tell(seen=os.listdir({str(root)!r}))")
    shown = {path.relative_to(root).parts[0] for path in needed if path.is_relative_to(root)}
    assert set(bench.told()["seen"]) == shown


@pytest.mark.parametrize("sandbox", [True, False])
def test_the_trainer_is_what_runs(tmp_path: Path, sandbox: bool) -> None:
    runtime = ProcessRuntime(tmp_path / "work", sandbox=sandbox)
    outcome = runtime.run(Bench(runtime, tmp_path, None).job("pass"))
    # There is no job in /in: it is the trainer that says so.
    assert outcome.exit_code != 0
    assert "emperf.training" in outcome.log_tail or "job.json" in outcome.log_tail
    assert "No module named emperf" not in outcome.log_tail


@pytest.mark.parametrize("bench", PROCESS, indirect=True)
def test_the_package_holds_what_the_trainer_runs_and_no_more(bench: Bench) -> None:
    package = Path(emperf.__file__).parent
    outcome = bench.run(
        f"""
        import emperf, emperf.training
        here = os.path.dirname(emperf.__file__)
        own = {str(package)!r}
        tell(files=sorted(os.listdir(here)), own=os.listdir(own) if os.path.isdir(own) else [], here=here)
        """
    )
    assert outcome.exit_code == 0, outcome.log_tail
    told = bench.told()
    assert [name for name in told["files"] if name != "__pycache__"] == ["__init__.py", "training"]
    if not bench.runtime.no_sandbox:
        assert (told["here"], told["own"]) == ("/trainer/emperf", [])


@pytest.mark.parametrize("bench", PROCESS, indirect=True)
def test_what_is_no_part_of_a_submissions_digest_is_not_there(bench: Bench) -> None:
    job = bench.job("tell(seen=sorted(os.listdir(os.path.dirname(sys.argv[0]))))")
    (job.submission / ".hidden.py").write_text("")
    (job.submission / "__pycache__").mkdir()
    (job.submission / "helper.py").write_text("")
    bench.runtime.run(job)
    assert bench.told()["seen"] == ["helper.py", "main.py"]


def test_a_plain_process_says_what_it_lacks(tmp_path: Path) -> None:
    described = process_runtime(tmp_path, False, cgroup_root=tmp_path).describe()
    assert described["isolation"] == "plain process"
    assert "bubblewrap" in " ".join(described["missing"])
    assert "cgroup" in " ".join(described["missing"])
    assert not ProcessRuntime.certifiable


def test_without_cgroups_the_largest_process_is_metered(tmp_path: Path) -> None:
    bench = Bench(process_runtime(tmp_path / "work", False, cgroup_root=tmp_path), tmp_path, None)
    ballast = bytearray(160 << 20)
    outcome = bench.run("held = bytearray(80 << 20); time.sleep(0.8)")
    assert len(ballast) == 160 << 20
    assert outcome.memory_meter == "rusage"
    assert 80 << 20 < outcome.peak_memory_bytes < 160 << 20


@pytest.mark.parametrize("bench", PROCESS, indirect=True)
def test_leftovers_of_a_killed_harness_are_swept(bench: Bench) -> None:
    job = bench.job("open(OUT + '/pid', 'w').write('x'); time.sleep(60)", run_id="killed")
    program = (
        "import sys, pickle; runtime, job = pickle.load(sys.stdin.buffer);"
        "runtime.run(job, lambda elapsed: print(elapsed, flush=True))"
    )
    harness = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    harness.stdin.write(pickle.dumps((bench.runtime, job)))
    harness.stdin.close()
    assert harness.stdout.readline()
    mark = str(bench.runtime.work / "killed" / job.job_id)
    assert running(mark)
    harness.kill()
    harness.wait()
    if not bench.runtime.no_sandbox:
        # It dies with the harness, before anybody sweeps.
        assert gone(mark)
    assert bench.runtime.sweep("killed") == 1
    assert gone(mark)
    assert not (bench.runtime.work / "killed").exists()
    assert bench.runtime.sweep("killed") == 0


def gone(mark: str) -> bool:
    deadline = time.monotonic() + 5
    while running(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not running(mark)


def running(mark: str) -> list[int]:
    """Processes of this job that are no zombies."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("EMPERF_JOB") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    "escape",
    [
        "os.setsid()",
        # Without its environment it can be told by its process group alone.
        "os.execve(sys.executable, [sys.executable, '-c', BEATS, OUT + '/beat'], {})",
    ],
)
def test_without_cgroups_what_is_left_running_dies_too(tmp_path: Path, escape: str) -> None:
    beats = "import sys, time\nwhile True: open(sys.argv[1], 'a').write('x'); time.sleep(0.05)"
    bench = Bench(process_runtime(tmp_path / "work", False, cgroup_root=tmp_path), tmp_path, None)
    bench.run(
        f"""
        BEATS = {beats!r}
        if not os.fork():
            {escape}
            sys.argv[1] = OUT + "/beat"
            exec(BEATS)
        time.sleep(0.6)
        """
    )
    sizes = []
    for _ in range(2):
        sizes += [entry.size for entry in bench.runtime.collect(bench.jobs[-1]) if entry.path == "beat"]
        time.sleep(0.3)
    assert sizes[0] == sizes[1] > 0


@pytest.mark.parametrize("bench", PROCESS, indirect=True)
def test_cleanup_removes_folders_deeper_than_python_recurses(bench: Bench) -> None:
    bench.run("os.chdir(OUT)\nfor _ in range(1500):\n    os.mkdir('d'); os.chdir('d')")
    job = bench.jobs[-1]
    entries = list(bench.runtime.collect(job))
    assert 60 < len(entries) < 70
    assert entries[-1].kind == "other"
    bench.runtime.cleanup(job)
    assert not (bench.runtime.work / "tests" / job.job_id).exists()
