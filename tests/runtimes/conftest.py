"""What the tests of the runtimes share: a small image, and one way to run a program in any runtime."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import textwrap
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker
import pytest

from emperf.core.limits import Limits
from emperf.runtimes import ContainerJob, Outcome
from emperf.runtimes.docker import DockerRuntime, engine_answers
from emperf.runtimes.images import build_local_base, build_submission_image
from emperf.runtimes.process import ProcessRuntime
from emperf.runtimes.sandbox import why_no_walls

ENGINE = Path(__file__).parents[2] / "tools" / "engine.sh"
LIMITS = Limits(wall_s=60, memory_bytes=256 << 20, cpus=1, pids=64, output_bytes=64 << 20, tmp_bytes=8 << 20)
RUNTIMES = [pytest.param("docker", marks=pytest.mark.docker), "sandbox", "plain"]
WALLED = RUNTIMES[:2]
PRELUDE = """
import errno, json, os, sys, time
IN, OUT = sys.argv[1:3] if len(sys.argv) > 2 else ("/in", "/out")
def tell(**facts):
    with open(OUT + "/told.json", "w") as file:
        json.dump(facts, file)
def refused(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "allowed"
"""
_START = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0] + '/main.py')"


@dataclass
class Bench:
    """Runs programs in one runtime. A program starts with PRELUDE; what it tells comes back in `told`."""

    runtime: Any
    folder: Path
    base: str | None
    jobs: list[ContainerJob] = field(default_factory=list)

    def job(self, program: str, **changes: Any) -> ContainerJob:
        """A job that runs `program`; `changes` are of the limits, or `inputs`, `shared`, `run_id`."""
        own = {name: changes.pop(name) for name in ("inputs", "shared", "run_id") if name in changes}
        name = f"t{uuid.uuid4().hex[:10]}"
        submission = self.folder / name
        submission.mkdir()
        (submission / "main.py").write_text(PRELUDE + textwrap.dedent(program))
        image = build_submission_image(self.base, submission) if self.base else None
        limits = replace(LIMITS, **changes)
        given = {"job_id": name, "run_id": "tests", "inputs": {}, **own}
        job = ContainerJob(image=image, submission=submission, limits=limits, **given)
        self.jobs.append(job)
        return job

    def run(self, program: str, **changes: Any) -> Outcome:
        return self.runtime.run(self.job(program, **changes))

    def needs_cgroup(self) -> None:
        """Skip where nothing would stop a program that takes all there is."""
        if self.runtime.name == "process" and self.runtime.describe()["limits"] != "cgroup":
            pytest.skip("no writable cgroup here")

    def told(self) -> Mapping[str, Any]:
        """What the last program told."""
        for entry in self.runtime.collect(self.jobs[-1]):
            if entry.path == "told.json":
                return json.loads(entry.open().read())
        raise AssertionError("the program told nothing")


def process_runtime(work: Path, sandbox: bool, **more: Any) -> ProcessRuntime:
    command = [sys.executable, "-c", _START, "{submission}", "{in}", "{out}"]
    return ProcessRuntime(work, command=command, sandbox=sandbox, **more)


@pytest.fixture(scope="session")
def engine() -> str:
    """The version of an engine that answers."""
    answers, said = engine_answers()
    if not answers:
        pytest.skip(said)
    return said


def make_test_base() -> str:
    """The tag of an image, of Python alone, that runs a submission's main.py."""
    build_local_base("emperf/tests:python", packages=False)
    recipe = b'FROM emperf/tests:python\nENTRYPOINT ["python3", "/submission/main.py"]\n'
    client = docker.from_env().api
    for line in client.build(fileobj=io.BytesIO(recipe), tag="emperf/tests:base", rm=True, decode=True):
        assert "error" not in line, line
    return "emperf/tests:base"


@pytest.fixture(scope="session")
def test_base(engine: str) -> str:
    return make_test_base()


@pytest.fixture(scope="session")
def base(engine: str) -> str:
    """The id of the image that submissions start from, made of this Python where there is none."""
    return build_local_base()


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Parametrised indirectly with "docker", "sandbox" or "plain"."""
    if request.param == "docker":
        made = Bench(DockerRuntime(), tmp_path, request.getfixturevalue("test_base"))
    else:
        if request.param == "sandbox" and (reason := why_no_walls()):
            pytest.skip(f"no sandbox: {reason}")
        made = Bench(process_runtime(tmp_path / "work", request.param == "sandbox"), tmp_path, None)
    yield made
    for job in made.jobs:
        made.runtime.cleanup(job)
    if request.param == "docker":
        digests = {digest for job in made.jobs for digest, _ in job.shared.values()}
        client = docker.from_env()
        for image in {job.image for job in made.jobs}:
            client.images.remove(image, force=True)
        for mark in client.volumes.list(filters={"label": "emperf.filled"}):
            if mark.attrs["Labels"]["emperf.digest"] in digests:
                client.volumes.get(mark.attrs["Labels"]["emperf.filled"]).remove()
                mark.remove()


@pytest.fixture
def own_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state folder of an engine that a test may kill."""
    # Not tmp_path: a socket's path is short.
    state = Path(tempfile.mkdtemp(prefix="eng-", dir="/tmp"))
    started = subprocess.run([ENGINE, "start", state], check=False, capture_output=True, text=True)
    try:
        if started.returncode:
            pytest.skip(f"no private engine: {started.stderr.strip()}")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{state}/docker.sock")
        yield state
    finally:
        subprocess.run([ENGINE, "stop", state], check=True, capture_output=True)
        subprocess.run(["rm", "-rf", state], check=True)
