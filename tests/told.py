"""A runtime that trains nothing and ends as it is told."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save

from emperf import catalog
from emperf.catalog.prepare import prepared
from emperf.cli import main
from emperf.core import paths
from emperf.core.errors import CellFailure, FailureKind
from emperf.experiments import session
from emperf.experiments.session import Choice
from emperf.runtimes import ContainerJob, Outcome, OutputFile
from emperf.training.job import Recipe
from emperf.work import outputs
from tests.tiny_benchmark import Tiny

WALL_S = 10.0
ADAPTER = "adapter.safetensors"
Files = dict[str, bytes]
End = Callable[[Files], Outcome]


def ends(**changes: Any) -> Outcome:
    plain: dict[str, Any] = {
        "exit_code": 0, "wall_s": WALL_S, "timed_out": False, "oom_killed": False, "peak_memory_bytes": 5,
        "memory_meter": "rusage", "log_tail": "",
    }  # fmt: skip
    return Outcome(**plain | changes)


class Told:
    """A runtime that trains nothing: `end` says how the jobs of a mitigation (or of `whose`) end, and may change what
    they leave."""

    name, certifiable = "process", False

    def __init__(
        self, model: Path, end: End | None = None, faults: int = 0, train_s: float = 1.0, whose: str = ""
    ) -> None:
        self.model, self.end, self.faults, self.train_s, self.whose = model, end, faults, train_s, whose
        self.jobs: list[ContainerJob] = []
        self.left: dict[str, Files] = {}

    def describe(self) -> dict[str, Any]:
        return {"runtime": self.name, "isolation": "none", "missing": []}

    def run(self, job: ContainerJob, on_tick: Callable[[float], None] | None = None) -> Outcome:
        self.jobs.append(job)
        if self.faults:
            self.faults -= 1
            raise CellFailure(FailureKind.MACHINE, "the power went")
        said = json.loads(bytes_of(job, "job.json"))
        shapes = outputs.expected_weights(self.model, Recipe.parse(said["recipe"]).lora)
        adapter = {name: torch.zeros(shape) for name, shape in shapes.items()}
        report = {"steps": 1, "train_s": self.train_s, "tokens": 1, "losses": [1.0], "checkpoints": {}}
        left = {ADAPTER: save(adapter), "report.json": json.dumps(report).encode()}
        recipe = Recipe.parse(said["recipe"])
        steps = recipe.steps(len(bytes_of(job, said["data"]).splitlines()))
        for step in {round(part * steps) for part in recipe.checkpoints}:
            left[f"checkpoints/step-{step:05d}.safetensors"] = left[ADAPTER]
        self.left[job.job_id] = left
        name = job.submission.name
        told = name == self.whose if self.whose else name != "none"
        return self.end(left) if self.end and told else ends()

    def collect(self, job: ContainerJob) -> Iterator[OutputFile]:
        for name, content in self.left[job.job_id].items():
            kind = "symlink" if content == b"-> elsewhere" else "file"
            opened = functools.partial(io.BytesIO, content) if kind == "file" else None
            yield OutputFile(name, kind, len(content), opened)

    def cleanup(self, job: ContainerJob) -> None: ...

    def sweep(self, run_id: str) -> int:
        return 0


def bytes_of(job: ContainerJob, name: str) -> bytes:
    content = job.inputs[name]
    assert isinstance(content, bytes)
    return content


def commands(tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What runs a command on a small benchmark, in a folder and with this runtime; its output. It has to succeed."""
    monkeypatch.setenv("EMPERF_ROOT", str(tiny.root))
    monkeypatch.setenv("EMPERF_HOME", str(tiny.home))
    monkeypatch.setenv(paths.CARDS, "")
    monkeypatch.chdir(folder)
    runtime = Told(prepared(catalog.model("tiny")))
    monkeypatch.setattr(session, "choose_runtime", lambda *_: Choice(runtime, {}, "told", "docker-like"))

    def run(*arguments: str) -> str:
        said = CliRunner().invoke(main, arguments)
        assert said.exit_code == 0, said.output
        return said.output

    return run
