"""`emperf run` with a real engine, from the machine and from the harness's own image, on the benchmark in miniature."""

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.tiny_benchmark import PROJECT, Tiny, ready_tiny

from emperf import catalog
from emperf.runtimes.docker import engine_answers
from emperf.runtimes.images import base_image_tag, build_local_base

ANSWERS, WHY = engine_answers()
pytestmark = [pytest.mark.docker, pytest.mark.skipif(not ANSWERS, reason=WHY)]


@pytest.fixture(scope="module")
def base() -> str:
    """The id of the submission base image, made of this Python where there is none."""
    return build_local_base()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, base: str) -> Tiny:
    return ready_tiny(tmp_path_factory.mktemp("tiny"))


def check_result(whole: dict[str, Any], meters: set[str]) -> None:
    catalog.check("result", whole)
    assert whole["status"] == "complete" and whole["runtime"]["runtime"] == "docker"
    assert {cell["memory_meter"] for cell in whole["cells"]} <= meters
    for cell in whole["cells"]:
        assert 0 < cell["train_s"] < cell["wall_s"]
        assert abs(cell["facts"]["engine_wall_s"] - cell["wall_s"]) < 5
        assert cell["peak_memory_bytes"] > 100e6
    assert all(image["start_s"] > 0.5 for image in whole["runtime"]["images"].values())
    assert whole["overhead"]["time"]["value"] > 0 and whole["overhead"]["memory"]["value"] > 0


def test_a_run_takes_docker_where_an_engine_answers(tiny: Tiny) -> None:
    code, out, err = tiny.emperf("run", "kl", "--division", "tiny")
    assert code == 0, err
    assert "Runtime: docker." in out
    whole = json.loads(next(tiny.store.glob("runs/*/result.json")).read_text())
    check_result(whole, {"cgroup-v1", "cgroup-v2", "cgroup-v2-sampled"})
    client = docker.from_env().api
    assert not client.containers(all=True, filters={"label": f"emperf.run={whole['run_id']}"})
    left = client.volumes(filters={"label": f"emperf.run={whole['run_id']}"})["Volumes"]
    assert all(volume["Name"].startswith("emperf-shared-") for volume in left)


@pytest.fixture(scope="module")
def harness_image(base: str) -> str:
    tag = "emperf/harness:test"
    done = subprocess.run(
        ["docker", "build", "--network", "none", "--target", "harness", "--build-arg", f"BASE={base}", "-t", tag, "."],
        cwd=PROJECT, env={**os.environ, "DOCKER_BUILDKIT": "0"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return tag


@pytest.fixture
def harness(harness_image: str, tiny: Tiny, tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """A container of the harness's image: the engine's socket and a copy of the small benchmark, no folder shared."""
    client = docker.from_env().api
    socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    host = client.create_host_config(binds=[f"{socket}:/var/run/docker.sock"], network_mode="none")
    made = client.create_container(
        harness_image, ["run", "kl", "--division", "tiny"], host_config=host,
        environment={
            "EMPERF_ROOT": "/tiny/root", "EMPERF_HOME": "/tiny/home", "EMPERF_STORE": "/tiny/store",
            "DOCKER_HOST": "unix:///var/run/docker.sock",
        },
    )["Id"]  # fmt: skip
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for part in (tiny.root, tiny.home):
            tar.add(part, f"tiny/{part.name}")
    client.put_archive(made, "/", stream.getvalue())
    yield client, made
    client.remove_container(made, force=True)


def test_the_harness_runs_from_its_own_image_and_starts_siblings(harness: tuple[Any, str]) -> None:
    client, made = harness
    client.start(made)
    code = client.wait(made, timeout=400)["StatusCode"]
    log = client.logs(made).decode()
    assert code == 0, log[-3000:]
    assert "Runtime: docker." in log and "made-up-units" in log
    chunks, _ = client.get_archive(made, "/tiny/store/runs")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        name = next(member for member in tar.getnames() if member.endswith("result.json"))
        extracted = tar.extractfile(name)
        assert extracted is not None
        check_result(json.loads(extracted.read()), {"engine-stats", "cgroup-v1", "cgroup-v2"})


def test_docker_asked_for_where_none_answers_is_one_line(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    code, _, err = tiny.emperf("run", "kl", "--division", "tiny", "--runtime", "docker")
    assert code == 2 and "no Docker engine answers" in err and "--runtime process" in err
    assert len(err.strip().splitlines()) == 1 and shutil.which("docker") is not None
    assert base_image_tag() not in err
