"""examples/container: built with no network, run as a submission, held to the contract and the reference trainer."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from safetensors.torch import load_file

from emperf.core import digests, schemas
from emperf.core.limits import Limits
from emperf.runtimes import ContainerJob, Outcome
from emperf.runtimes.docker import DockerRuntime, engine_answers
from emperf.runtimes.images import build_local_base, resolve_image
from emperf.runtimes.tars import tar_stream, tar_tree
from emperf.training.job import Job, Recipe
from emperf.work import outputs

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "examples" / "container"
ANSWERS, WHY = engine_answers()
pytestmark = [pytest.mark.docker, pytest.mark.skipif(not ANSWERS, reason=WHY)]
LIMITS = Limits(wall_s=300, memory_bytes=3 << 30, cpus=2, pids=256, output_bytes=20 << 20)
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"Say {i}."},
            {"role": "assistant", "content": "ab" * (1 + i % 7)},
        ]
    }
    for i in range(24)
]
DATA = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def job(weight: float = 0.0, **changes: Any) -> Job:
    plain = {"lora": {"r": 4, "alpha": 8}, "learning_rate": 5e-3, "epochs": 1, "micro_batch": 4, "threads": 1}
    return Job("0123456789abcdef", 3, Recipe.parse(plain | changes), {"weight": weight})


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The example's image, by the name in its submission.yaml."""
    tag = yaml.safe_load((EXAMPLE / "submission.yaml").read_text())["image"]
    context = b"".join(tar_stream([*tar_tree(EXAMPLE, ".")]))
    client = docker.from_env()
    client.images.build(
        fileobj=io.BytesIO(context), custom_context=True, tag=tag, buildargs={"BASE": build_local_base()},
        network_mode="none", rm=True,
    )  # fmt: skip
    yield tag
    client.images.remove(tag, force=True)


def in_container(image: str, model: Path, asked: Job, into: Path) -> Outcome:
    """Run as the harness does; what it left is below `into`."""
    into.mkdir()
    shared = {"model": (digests.of_tensors(model / "model.safetensors"), model)}
    inputs: dict[str, bytes | Path] = {"job.json": asked.dumps(), "data.jsonl": DATA}
    whole = ContainerJob("example", "examples", resolve_image(image), EXAMPLE, LIMITS, inputs, shared)
    runtime = DockerRuntime()
    try:
        outcome = runtime.run(whole)
        if outcome.exit_code == 0:
            outputs.take(runtime.collect(whole), into, LIMITS.output_bytes, asked.recipe.weights_file)
        return outcome
    finally:
        runtime.cleanup(whole)


def reference(model: Path, asked: Job, at: Path) -> dict[str, Any]:
    """The reference trainer's own report of plain training."""
    (at / "in").mkdir(parents=True)
    (at / "out").mkdir()
    (at / "in/model").symlink_to(model)
    (at / "in/data.jsonl").write_bytes(DATA)
    (at / "in/job.json").write_bytes(dataclasses.replace(asked, parameters={}).dumps())
    command = [sys.executable, "-m", "emperf.training", "--in", at / "in", "--out", at / "out"]
    command += ["--submission", PROJECT / "reference_impls/none"]
    subprocess.run(command, check=True, capture_output=True)
    return dict(json.loads((at / "out/report.json").read_text()))


def test_plain_training_is_the_reference_trainers(image: str, tiny: Path, tmp_path: Path) -> None:
    # All rows in every step, so that the order of the batches, which is free, makes no difference.
    asked = job(micro_batch=24, epochs=8, checkpoints=(0.5,), weight_decay=0.01)
    outcome = in_container(image, tiny, asked, tmp_path / "left")
    assert outcome.exit_code == 0, outcome.log_tail
    expected = outputs.expected_weights(tiny, asked.recipe.lora)
    for name in ("adapter.safetensors", "checkpoints/step-00004.safetensors"):
        outputs.check_weights(tmp_path / "left" / name, expected)
    said = json.loads((tmp_path / "left/report.json").read_text())
    schemas.check("report", said)
    theirs = reference(tiny, asked, tmp_path / "reference")
    assert said["losses"] == pytest.approx(theirs["losses"], abs=1e-5)
    assert said["gradient_norms"] == pytest.approx(theirs["gradient_norms"], rel=1e-3)
    assert (said["steps"], said["tokens"], said["checkpoints"]) == (
        8,
        theirs["tokens"],
        theirs["checkpoints"],
    )
    ours, other = (load_file(tmp_path / at / "adapter.safetensors") for at in ("left", "reference/out"))
    assert max(float((ours[name] - other[name]).abs().max()) for name in other) < 1e-5


def test_the_penalty_accumulation_and_what_it_cannot_do(image: str, tiny: Path, tmp_path: Path) -> None:
    asked = job(
        weight=1.0,
        accumulation=2,
        epochs=2,
        lora={"r": 4, "alpha": 8, "layers": [1], "modules": ["down_proj"]},
    )
    outcome = in_container(image, tiny, asked, tmp_path / "left")
    assert outcome.exit_code == 0, outcome.log_tail
    outputs.check_weights(
        tmp_path / "left/adapter.safetensors", outputs.expected_weights(tiny, asked.recipe.lora)
    )
    said = outputs.read_report(tmp_path / "left/report.json")
    assert said["steps"] == 6
    none = in_container(image, tiny, job(lora=None), tmp_path / "none")
    assert none.exit_code == 4 and "adapters alone" in none.log_tail
