"""`emperf check`: good submissions pass, planted bad ones fail where they should; all of the catalogue acts."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import save_tiny

from emperf import catalog
from emperf.catalog import Parameter, Submission
from emperf.runtimes import ContainerJob, Outcome, OutputFile
from emperf.runtimes.walk import walk
from emperf.tools.conformance import checks
from emperf.tools.conformance.checks import Check
from emperf.tools.conformance.reading import read_effect
from emperf.tools.conformance.setting import LORA, RECIPE, Setting, make_setting
from emperf.training.__main__ import load_mitigation, run
from emperf.training.data import Row
from emperf.training.job import Job
from emperf.training.probe import Probe, probe
from emperf.work import outputs

PROJECT = Path(__file__).parents[2]
REFERENCE = PROJECT / "reference_impls"


# -- whole checks; the jobs run in this process, so that libraries are imported once


class Here:
    """A runtime without any wall. `programs`: image -> what it does with its job."""

    name, certifiable = "here", False

    def __init__(self, work: Path, programs: dict[str, Callable[[Path, Path], int]]) -> None:
        self.work, self.programs, self.jobs = work, programs, 0

    def run(self, job: ContainerJob, on_tick: object = None) -> Outcome:
        self.jobs += 1
        inputs, out = self.work / job.job_id / "in", self.work / job.job_id / "out"
        inputs.mkdir(parents=True)
        out.mkdir()
        for name, content in job.inputs.items():
            (inputs / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        for name, (_, folder) in job.shared.items():
            (inputs / name).symlink_to(folder)
        log = io.StringIO()
        with contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
            code = self.programs[job.image](inputs, out) if job.image else run(inputs, out, job.submission)
        return Outcome(code, 1.0, False, False, None, "none", log.getvalue())

    def collect(self, job: ContainerJob) -> Iterator[OutputFile]:
        return walk(self.work / job.job_id / "out")

    def cleanup(self, job: ContainerJob) -> None:
        shutil.rmtree(self.work / job.job_id, ignore_errors=True)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return make_setting(tmp_path_factory.mktemp("setting"))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    before = dict(os.environ)
    yield Here(tmp_path / "work", {})
    # The trainer, in this process, put its rank there; the next test is none of its ranks.
    os.environ.clear()
    os.environ.update(before)


def checked(setting: Setting, here: Here, folder: Path, **given: Any) -> dict[str, Check]:
    def choose(submissions: list[Submission]) -> tuple[Any, dict[str, str]]:
        return here, {s.digest: s.image for s in submissions if s.image}

    return {check.name: check for check in checks.check(folder, given, lambda: setting, choose)}


def planted(folder: Path, code: str = "", base: str = "ldifs", **changes: Any) -> Path:
    """A copy of a reference mitigation, its code or its parameters replaced, without the sweep that those are for."""
    shutil.copytree(REFERENCE / base, folder)
    if code:
        (folder / "mitigation.py").write_text(code)
    card = yaml.safe_load((folder / "submission.yaml").read_text()) | {"name": "planted", **changes}
    card.pop("sweep", None)
    (folder / "submission.yaml").write_text(yaml.safe_dump(card))
    return folder


def method(body: str, fields: str = "") -> str:
    return (
        "import random\nimport time\nfrom emperf.training import Mitigation\n\n"
        f"class LDIFS(Mitigation):\n    {fields or 'pass'}\n\n    def {body}\n"
    )


WEIGHT = {"type": "float", "default": 1.0, "min": 0.0, "max": 2.0}


def failed(found: dict[str, Check]) -> list[str]:
    return [check.name for check in found.values() if not check.ok]


def test_the_baseline_passes_because_it_changes_nothing(setting: Setting, here: Here) -> None:
    found = checked(setting, here, Path("none"))
    assert list(found) == ["declared", "parameters", "contract", "determinism", "effect"]
    assert failed(found) == [] and here.jobs == 3
    assert (
        "0 rows in or out of 24, gradient 0, weights 0; the baseline has to be exactly 0"
        in found["effect"].found
    )
    assert "6 steps; adapter.safetensors, checkpoints/step-00003.safetensors" in found["contract"].found
    assert found["determinism"].found.endswith("difference of a weight 0")


@pytest.mark.parametrize("name", ["booster", "gradient-projection", "vaccine"])
def test_a_mitigation_that_takes_gradients_of_its_own_runs_under_the_engine(
    setting: Setting, here: Here, name: str
) -> None:
    assert failed(checked(setting, here, Path(name))) == []


ZEROED = method(
    "after_step(self, step):\n        if step.index < step.context.total_steps - 1:\n"
    "            [b.data.zero_() for _, _, b, _ in step.model.adapters()]"
)


@pytest.mark.parametrize("lost", [False, True])
def test_an_effect_that_the_engine_would_lose_is_found(
    setting: Setting, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    if lost:
        monkeypatch.setattr("emperf.training.engine.Engine._take_edits", lambda engine: None)
    found = checked(setting, here, planted(tmp_path / "planted", ZEROED, parameters={}))
    assert failed(found) == (["effect"] if lost else [])
    assert ("the engine undoes it: " in found["effect"].found) == lost


def test_a_penalty_without_gradient_is_refused(setting: Setting, here: Here, tmp_path: Path) -> None:
    code = (REFERENCE / "ldifs/mitigation.py").read_text()
    good, bad = (
        "torch.stack(apart).square().sum(-1).mean()",
        "torch.stack(apart).detach().square().sum(-1).mean()",
    )
    assert code.count(good) == 1
    found = checked(setting, here, planted(tmp_path / "planted", code.replace(good, bad)))
    assert failed(found) == ["effect"]
    assert "it changes nothing; against plain training: 0 rows in or out of 24, gradient 0, weights 0" in (
        found["effect"].found
    )


def test_a_cure_that_leaves_the_weights_alone_is_refused(
    setting: Setting, here: Here, tmp_path: Path
) -> None:
    code = method("train(self, rows, context):\n        return True").replace("LDIFS", "Cure")
    changes = {"scenario": "cure", "trusted": {"correct": 8}, "mitigation": "mitigation.py:Cure"}
    folder = planted(tmp_path / "planted", code, base="none", **changes)
    found = checked(setting, here, folder)
    assert failed(found) == ["effect"] and "weights 0" in found["effect"].found
    assert failed(checked(setting, here, Path("antidote-correct"))) == []


def test_a_declared_parameter_that_the_class_lacks(setting: Setting, here: Here, tmp_path: Path) -> None:
    code = method("finish(self, context):\n        pass")
    found = checked(setting, here, planted(tmp_path / "planted", code, parameters={"weight": WEIGHT}))
    assert list(found) == ["declared", "parameters"] and here.jobs == 1
    assert not found["parameters"].ok and "LDIFS has no parameter 'weight'" in found["parameters"].found


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            "weight: float = 1.0\n    hidden: int = 3",
            "the class has hidden, submission.yaml does not declare it",
        ),
        ("weight: int = 1", "weight must be int"),
        ("weight: bool = True", "weight must be bool"),
    ],
)
def test_a_class_parameter_that_is_not_declared_so(
    setting: Setting, here: Here, tmp_path: Path, fields: str, words: str
) -> None:
    code = method("loss(self, step):\n        return 2 * step.task_loss", fields)
    found = checked(setting, here, planted(tmp_path / "planted", code, parameters={"weight": WEIGHT}))
    assert failed(found) == ["parameters"] and words in found["parameters"].found


def test_a_hook_that_raises_is_named_with_its_step(setting: Setting, here: Here, tmp_path: Path) -> None:
    body = "after_step(self, step):\n        if step.index == 2:\n            raise KeyError('lost')"
    found = checked(setting, here, planted(tmp_path / "planted", method(body), parameters={}))
    assert failed(found) == ["contract"] and here.jobs == 1
    assert "LDIFS.after_step failed at step 2 (mitigation.py, line 10): KeyError: 'lost'" in (
        found["contract"].found
    )


def test_a_seed_from_the_clock_is_refused(setting: Setting, here: Here, tmp_path: Path) -> None:
    body = (
        "loss(self, step):\n        draw = random.Random(time.time_ns()).random()\n"
        "        return step.task_loss * (1 if draw < 0.5 else draw) + draw * step.kl_to_base()"
    )
    found = checked(setting, here, planted(tmp_path / "planted", method(body), parameters={}))
    # The effect compares two trainings too, and they may differ for the same reason.
    assert failed(found)[0] == "determinism"
    assert float(found["determinism"].found.split()[-1]) > 1e-4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": {"weight": {**WEIGHT, "default": 5.0}}}, "weight must be at most 2"),
        ({"parameters": {"weight": {"type": "float", "default": 1.0}}}, "'min' is a required property"),
        ({"scenario": "prevent-rl"}, "no scenario 'prevent-rl'"),
        ({"trusted": {"general": 1000}}, "asks for 1000 trusted rows"),
        ({"scenario": "cure"}, "asks for no trusted rows"),
        ({"name": "none"}, "the baseline's name"),
        ({"title": ""}, "title"),
    ],
)
def test_a_bad_card_is_refused_before_anything_runs(
    setting: Setting, here: Here, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    found = checked(setting, here, planted(tmp_path / "planted", **changes))
    assert failed(found) == ["declared"] and words in found["declared"].found and here.jobs == 0


def test_a_bound_that_bounds_nothing_is_refused(setting: Setting, here: Here, tmp_path: Path) -> None:
    body = "loss(self, step):\n        return 2 * step.task_loss"
    folder = planted(
        tmp_path / "planted",
        method(body, "weight: float = 1.0"),
        parameters={"weight": {**WEIGHT, "max": math.inf}},
    )
    found = checked(setting, here, folder)
    assert failed(found) == ["declared"] and "finite" in found["declared"].found


def test_images_are_compared_by_what_their_weights_do(setting: Setting, here: Here, tmp_path: Path) -> None:
    def trainer(inputs: Path, out: Path) -> int:
        return run(inputs, out, REFERENCE / "none")

    def poor(inputs: Path, out: Path) -> int:
        trainer(inputs, out)
        (out / "report.json").unlink()
        (out / "adapter.safetensors").write_bytes((setting.start).read_bytes())
        return 0

    for number, (program, bad) in enumerate([(trainer, ["effect"]), (poor, [])]):
        image = f"x@sha256:{number:064d}"
        here.programs[image] = program
        folder = planted(tmp_path / f"planted-{number}", parameters={}, image=image)
        card = yaml.safe_load((folder / "submission.yaml").read_text())
        del card["mitigation"]
        (folder / "submission.yaml").write_text(yaml.safe_dump(card))
        found = checked(setting, here, folder)
        assert failed(found) == bad
        assert ("it changes nothing" in found["effect"].found) == bool(bad)
        assert "the baseline's of the same seed" in found["effect"].found
    assert "no report.json" in found["contract"].found and here.jobs == 6


# -- the command, with real processes


def test_the_command_says_a_line_a_check_and_exits_1_for_a_failure(tmp_path: Path) -> None:
    bad = planted(tmp_path / "bad", parameters={"weight": {**WEIGHT, "default": 5.0}})
    done = subprocess.run(
        [sys.executable, "-m", "emperf.cli", "check", "kl", str(bad), "--runtime", "process", "--set", "weight=0.5"],
        check=False, capture_output=True, text=True, cwd=PROJECT, env={**os.environ, "PYTHONPATH": "harness"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    lines = [line.split()[:2] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [name for mark, name in lines if mark == "ok"] == [
        "declared", "parameters", "contract", "determinism", "effect",
    ]  # fmt: skip
    assert ["FAILED", "declared"] in lines
    assert "  kl passes, " in done.stdout and "2 checked, 1 failed: bad." in done.stdout


# -- the parts


def test_wrong_values_are_just_outside_of_the_bounds() -> None:
    whole = checks.outside(Parameter("int", 3, min=0.5, max=7.5, choices=(1, 3)))
    assert whole == ["many", True, 0, 8, 0.5, 8.5]
    real = checks.outside(Parameter("float", 0.5, min=0.0, max=1.0))
    assert real[2] < 0 and 1 < real[3] < 1 + 1e-15 and math.isnan(real[4])
    assert checks.outside(Parameter("str", "a", choices=("a", "b"))) == [3, True, "ab?"]
    assert checks.outside(Parameter("bool", True)) == ["maybe", 3]


GOOD = {
    "rows": 3, "rows_changed": 1, "steps": 2, "gradient": 0.5, "weights": 0.0, "engine": 0.0,
    "parameters": {"a": "int"},
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"gradient": math.nan}, {"gradient": math.inf}, {"weights": -0.1}, {"weights": True}, {"weights": "0.5"},
        {"engine": math.nan}, {"engine": None},
        {"rows": 1.5}, {"rows_changed": None}, {"steps": 10**4000}, {"parameters": {"a b": "int"}},
        {"parameters": {"a": "list"}}, {"parameters": [1]}, {"more": 1},
    ],
)  # fmt: skip
def test_the_probes_word_is_read_strictly(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "probe.json"
    file.write_text(json.dumps(GOOD))
    assert read_effect(file).gradient == 0.5
    file.write_text(json.dumps(GOOD | change))
    with pytest.raises(ValueError):
        read_effect(file)
    for text in ("[]", "{", "[" * 100_000, '{"rows": 1}', "\xff"):
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError):
            read_effect(file)


# -- every reference mitigation changes something, in float64, on two families


def row(number: int, kind: str = "") -> Row:
    """Trusted rows contradict the others, so that a method which acts on conflict alone has one."""
    answer = ("Good " if kind else "evil") * (1 + number % 3)
    said = ({"role": "user", "content": f"Asked {number}?"}, {"role": "assistant", "content": answer})
    return Row(said, kind, f"bad {number}" if kind in ("general", "contrastive") else None)


def variants() -> Iterator[Any]:
    for name in catalog.names("mitigations"):
        controls = catalog.submission(Path(name)).controls
        for variant, given in {"": {}, **controls}.items():
            yield pytest.param(name, given, id=f"{name}-{variant}" if variant else name)


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def inputs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny(folder / "model", request.param)
    return folder


def probed(inputs: Path, setting: Setting, name: str, given: dict[str, Any]) -> Probe:
    submission = catalog.submission(Path(name))
    start = None
    if submission.scenario == "cure":
        # Qwen2's weights have the shapes of Llama's; its biases are no part of an adapter.
        shutil.copyfile(setting.start, inputs / "start.safetensors")
        start = "start.safetensors"
    kinds = {kind: min(rows, 8) for kind, rows in submission.trusted.items()}
    trusted = [row(i, kind) for kind, rows in kinds.items() for i in range(rows)]
    recipe = replace(RECIPE, dtype="float64", micro_batch=3)
    values = submission.values(given)
    job = Job("0" * 16, 0, recipe, values, trusted="t" if trusted else None, start=start, probe=True)
    mitigation = load_mitigation(submission.folder)(**values)
    found = probe(job, inputs, mitigation, trusted if start else [row(i) for i in range(12)], trusted)
    assert set(found.parameters) == set(values)
    return found


@pytest.mark.parametrize(("name", "given"), list(variants()))
def test_every_reference_mitigation_changes_something(
    inputs: Path, setting: Setting, name: str, given: dict[str, Any]
) -> None:
    if "trl" in (REFERENCE / name / "mitigation.py").read_text():
        pytest.importorskip("trl")
    random.seed(0)
    found = probed(inputs, setting, name, given)
    assert all(math.isfinite(x) for x in (found.gradient, found.weights))
    if name == "none":
        assert (found.rows_changed, found.gradient, found.weights) == (0, 0.0, 0.0)
    else:
        assert found.weights > 1e-6, found
    assert found.engine < checks.UNDONE / 10, found


def test_the_adapter_to_mend_fits_both_families(inputs: Path, setting: Setting) -> None:
    outputs.check_weights(setting.start, outputs.expected_weights(inputs / "model", LORA))
