"""An engine that is killed, restarted, gone or full of leftovers, and what it keeps for many jobs."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from tests.runtimes.conftest import ENGINE, LIMITS, Bench, make_test_base

from emperf.core.errors import CellFailure, FailureKind, UserError
from emperf.runtimes import dockerio
from emperf.runtimes.docker import DockerRuntime, engine_answers

DOCKER = [pytest.param("docker", marks=pytest.mark.docker)]
DIGEST = "sha256:" + "5ea1" * 16


def left(label: str) -> list[str]:
    client = docker.from_env()
    containers = client.containers.list(all=True, filters={"label": label})
    return [item.name for item in (*containers, *client.volumes.list(filters={"label": label}))]


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_an_engine_that_is_killed_and_restarted_costs_nothing(own_engine: Path, tmp_path: Path) -> None:
    bench = Bench(DockerRuntime(), tmp_path, make_test_base())
    job = bench.job("time.sleep(5); tell(done=True)")

    began = threading.Event()

    def kill_and_restart() -> None:
        began.wait()
        time.sleep(1)
        os.kill(int((own_engine / "docker.pid").read_text()), signal.SIGKILL)
        time.sleep(1)
        subprocess.run([ENGINE, "start", own_engine], check=True, capture_output=True)

    thread = threading.Thread(target=kill_and_restart)
    thread.start()
    outcome = bench.runtime.run(job, lambda elapsed: began.set())
    thread.join()
    assert outcome.exit_code == 0, outcome.log_tail
    assert outcome.facts["engine_lost"]
    assert 4.9 < outcome.wall_s < 7
    assert bench.told() == {"done": True}
    bench.runtime.cleanup(job)


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_an_engine_that_stays_away_is_the_machines_fault(own_engine: Path, tmp_path: Path) -> None:
    bench = Bench(DockerRuntime(reconnect_s=1), tmp_path, make_test_base())
    job = bench.job("time.sleep(30)")
    killer = threading.Timer(
        1.5, lambda: os.kill(int((own_engine / "docker.pid").read_text()), signal.SIGKILL)
    )
    killer.start()
    with pytest.raises(CellFailure) as failure:
        bench.runtime.run(job)
    assert failure.value.kind is FailureKind.MACHINE
    assert not engine_answers()[0]
    # The next session finds the container still there, and sweeps it.
    subprocess.run([ENGINE, "start", own_engine], check=True, capture_output=True)
    assert bench.runtime.sweep("tests") == 3


def test_no_engine_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    answers, why = engine_answers()
    assert not answers
    assert "tools/engine.sh start" in why
    job = replace(Bench(DockerRuntime(), tmp_path, None).job("pass"), image="any")
    with pytest.raises(CellFailure) as failure:
        DockerRuntime().run(job)
    assert failure.value.kind is FailureKind.MACHINE


@pytest.mark.parametrize("bench", DOCKER, indirect=True)
def test_leftovers_of_a_killed_harness_are_swept(bench: Bench) -> None:
    job = bench.job("time.sleep(60)", run_id="killed")
    program = (
        "import sys, pickle; from emperf.runtimes.docker import DockerRuntime;"
        "DockerRuntime().run(pickle.load(sys.stdin.buffer), lambda elapsed: print(elapsed, flush=True))"
    )
    harness = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    harness.stdin.write(pickle.dumps(job))
    harness.stdin.close()
    assert harness.stdout.readline()
    harness.kill()
    harness.wait()
    assert len(left("emperf.run=killed")) == 3
    assert bench.runtime.sweep("killed") == 3
    assert left("emperf.run=killed") == []
    assert bench.runtime.sweep("killed") == 0


@pytest.mark.parametrize("bench", DOCKER, indirect=True)
def test_a_job_leaves_nothing_after_cleanup(bench: Bench) -> None:
    bench.run("pass")
    job = bench.jobs[-1]
    assert sorted(left(f"emperf.job={job.job_id}")) == sorted(
        [f"emperf-{job.job_id}", f"emperf-in-{job.job_id}", f"emperf-out-{job.job_id}"]
    )
    bench.runtime.cleanup(job)
    bench.runtime.cleanup(job)
    assert left(f"emperf.job={job.job_id}") == []
    assert not list(Path("/sys/fs/cgroup").glob(f"*/emperf/{job.job_id}"))


@pytest.mark.parametrize("bench", DOCKER, indirect=True)
def test_a_shared_volume_is_filled_once_and_only_when_whole(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bench.folder / "model"
    model.mkdir()
    (model / "a").write_text("first")
    (model / "b").write_bytes(os.urandom(3 << 20))
    shared = {"model": (DIGEST, model)}
    look = "tell(a=open(IN + '/model/a').read(), files=sorted(os.listdir(IN + '/model')))"
    for volume in docker.from_env().volumes.list():
        if volume.name.startswith("emperf-shared-5ea15ea15ea1"):
            volume.remove()

    def half(folder: Path, name: str, *keep: object) -> Iterator[dockerio.Entry]:
        yield from itertools.islice(dockerio_tree(folder, name), 2)
        raise KeyboardInterrupt

    dockerio_tree = dockerio.tar_tree
    # kill -9 leaves the same: content without a mark.
    docker.from_env().volumes.create("emperf-shared-5ea15ea15ea1-killed", labels={"emperf.run": "tests"})
    monkeypatch.setattr(dockerio, "tar_tree", half)
    with pytest.raises(KeyboardInterrupt):
        bench.run(look, shared=shared)
    monkeypatch.setattr(dockerio, "tar_tree", dockerio_tree)
    assert bench.run(look, shared=shared).exit_code == 0
    assert bench.told() == {"a": "first", "files": ["a", "b"]}
    (model / "a").write_text("second")
    assert bench.run(look, shared=shared).exit_code == 0
    assert bench.told()["a"] == "first"
    bench.runtime.sweep("tests")
    names = [volume.name for volume in docker.from_env().volumes.list() if "5ea15ea15ea1" in volume.name]
    assert len(names) == 2
    assert "emperf-shared-5ea15ea15ea1" in names
    assert "emperf-shared-5ea15ea15ea1-killed" not in names


@pytest.mark.parametrize("bench", DOCKER, indirect=True)
def test_without_the_engines_cgroups_the_engine_is_asked(bench: Bench, tmp_path: Path) -> None:
    bench.runtime = DockerRuntime(cgroup_root=tmp_path / "none")
    (tmp_path / "none").mkdir()
    outcome = bench.run("held = bytearray(60 << 20); time.sleep(2.5)")
    assert outcome.memory_meter == "engine-stats"
    assert 60 << 20 < outcome.peak_memory_bytes < 120 << 20
    outcome = bench.run("held = []\nwhile True: held.append(bytearray(4 << 20))", memory_bytes=64 << 20)
    assert outcome.oom_killed


@pytest.mark.parametrize("bench", DOCKER, indirect=True)
def test_images_that_cannot_be_run(bench: Bench) -> None:
    job = bench.job("pass")
    with pytest.raises(UserError, match="not on this machine"):
        bench.runtime.run(replace(job, image="emperf/tests:missing"))
    client = docker.from_env()
    for tag, line in (("disk", "VOLUME /disk"), ("none", 'ENTRYPOINT ["/none"]')):
        recipe = f"FROM emperf/tests:base\n{line}\n".encode()
        client.images.build(fileobj=io.BytesIO(recipe), tag=f"emperf/tests:{tag}", rm=True)
    with pytest.raises(UserError, match="VOLUME"):
        bench.runtime.run(replace(job, image="emperf/tests:disk"))
    with pytest.raises(UserError, match="entry point"):
        bench.runtime.run(replace(job, image="emperf/tests:python"))
    assert left(f"emperf.job={job.job_id}") == []
    outcome = bench.runtime.run(replace(job, image="emperf/tests:none"))
    assert outcome.exit_code == 127
    assert "/none" in outcome.log_tail


@pytest.mark.parametrize("bench", DOCKER, indirect=True)
def test_description_and_facts_name_what_ran(bench: Bench) -> None:
    outcome = bench.run("pass")
    described = bench.runtime.describe()
    image = bench.jobs[-1].image
    assert described["images"][image]["id"] == outcome.facts["image"]["id"] == image
    assert described["cgroup_version"] in ("1", "2")
    assert {"engine", "api", "storage_driver", "cgroup_driver"} <= set(described)


@pytest.mark.parametrize("bench", DOCKER, indirect=True)
def test_walls_that_cannot_be_seen_from_inside(bench: Bench) -> None:
    bench.run("pass")
    host = docker.from_env().containers.get(f"emperf-{bench.jobs[-1].job_id}").attrs["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == LIMITS.memory_bytes
    assert host["NanoCpus"] == 1_000_000_000
    assert host["Init"]
    assert host["IpcMode"] == "private"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "5"}}
    assert not host["Privileged"]
    assert not host["Binds"]
