"""The trainer as the container runs it: exit codes, determinism, several processes, hooks that fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from emperf.training.__main__ import NO_ROOM
from emperf.training.data import Example
from emperf.training.job import Job, Lora, Recipe
from emperf.training.loop import plan_batches
from emperf.work import outputs

REFERENCE = Path(__file__).parents[2] / "reference_impls"


def recipe(**changes: object) -> Recipe:
    return Recipe.parse(
        {"lora": {"r": 4, "alpha": 8}, "learning_rate": 5e-3, "epochs": 1, "micro_batch": 4, "threads": 1}
        | changes
    )


def run(
    tmp: Path, model: Path, submission: Path = REFERENCE / "none", parameters: dict[str, object] | None = None,
    **changes: object,
) -> tuple[int, str, Path]:  # fmt: skip
    """(exit code, stdout and stderr, output folder) of the real entry point on a tiny model."""
    inputs, out = tmp / "in", tmp / "out"
    inputs.mkdir(parents=True)
    out.mkdir()
    (inputs / "model").symlink_to(model)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Say {i}."},
                {"role": "assistant", "content": "ab" * (1 + i % 7)},
            ]
        }
        for i in range(24)
    ]
    (inputs / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (inputs / "job.json").write_bytes(Job("blind", 3, recipe(**changes), parameters or {}).dumps())
    done = subprocess.run(
        [sys.executable, "-m", "emperf.training", "--in", inputs, "--out", out, "--submission", submission],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, out


def submission(folder: Path, body: str) -> Path:
    folder.mkdir()
    (folder / "submission.yaml").write_text("mitigation: mitigation.py:Mine\n")
    (folder / "mitigation.py").write_text(
        f"from emperf.training import Mitigation\n\n\nclass Mine(Mitigation):\n{body}"
    )
    return folder


def test_it_learns_and_leaves_what_the_contract_asks(tiny: Path, tmp_path: Path) -> None:
    code, log, out = run(tmp_path, tiny, epochs=4, checkpoints=[0.5])
    assert code == 0, log
    report = outputs.read_report(out / "report.json")
    assert report["steps"] == 24 and report["losses"][-1] < 0.8 * report["losses"][0]
    assert list(report["checkpoints"].values()) == [12]
    expected = outputs.expected_weights(tiny, Lora(4, 8))
    for name in ("adapter.safetensors", *report["checkpoints"]):
        outputs.check_weights(out / name, expected)


def test_the_seed_decides_everything(tiny: Path, tmp_path: Path) -> None:
    runs = [run(tmp_path / str(i), tiny) for i in range(2)]
    first, second = (load_file(out / "adapter.safetensors") for _, _, out in runs)
    assert all((first[name] == second[name]).all() for name in first)


def test_two_processes_train_as_one_does(tiny: Path, tmp_path: Path) -> None:
    _, _, one = run(tmp_path / "one", tiny, micro_batch=4)
    code, log, two = run(tmp_path / "two", tiny, micro_batch=2, processes=2)
    assert code == 0, log
    a, b = (outputs.read_report(out / "report.json") for out in (one, two))
    assert a["steps"] == b["steps"] == 6
    assert b["losses"][-1] < b["losses"][0]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradients_that_a_mitigation_takes_itself_train_as_the_loss_does(
    tiny: Path, tmp_path: Path, accumulation: int
) -> None:
    body = (
        "    def loss(self, step):\n"
        "        own = step.context.gradient(step.task_loss)\n"
        "        return step.with_gradient(own, step.task_loss)\n"
    )
    mine = submission(tmp_path / "mine", body)
    _, _, plain = run(tmp_path / "plain", tiny, accumulation=accumulation)
    code, log, out = run(tmp_path / "own", tiny, mine, accumulation=accumulation)
    assert code == 0, log
    a, b = (load_file(folder / "adapter.safetensors") for folder in (plain, out))
    assert all((a[name] - b[name]).abs().max() < 1e-5 for name in a)


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (
            "    def loss(self, step):\n        return step.task_loss * float('nan')\n",
            3,
            "the loss is nan at step 0",
        ),
        (
            "    def loss(self, step):\n        raise KeyError('gone')\n",
            5,
            "Mine.loss failed at step 0: KeyError",
        ),
        ("    def prepare_data(self, rows, context):\n        return 1 / 0\n", 5, "Mine.prepare_data failed"),
        ("    weight: float = 1.0\n", 4, "no parameter 'wieght'"),
    ],
)
def test_what_goes_wrong_has_an_exit_code_and_one_line(
    tiny: Path, tmp_path: Path, body: str, code: int, words: str
) -> None:
    given = {"wieght": 2.0} if code == 4 else {}
    mine = submission(tmp_path / "mine", body)
    found, log, _ = run(tmp_path / "job", tiny, mine, given)
    assert found == code and words in log.strip().splitlines()[-1]
    assert "Traceback" not in log


def test_kl_keeps_nearer_to_the_base_than_the_baseline(tiny: Path, tmp_path: Path) -> None:
    size = {}
    for name, parameters in (("none", {}), ("kl", {"weight": 20.0})):
        _, _, out = run(tmp_path / name, tiny, REFERENCE / name, parameters, epochs=4)
        size[name] = sum(
            float((t**2).sum()) for k, t in load_file(out / "adapter.safetensors").items() if "lora_B" in k
        )
    assert size["kl"] < 0.9 * size["none"]


def test_every_example_is_trained_on_once_an_epoch_whatever_the_world() -> None:
    examples = [Example(tuple(range(i + 2)), 1) for i in range(21)]
    for world in (1, 2):
        plan = plan_batches(examples, recipe(micro_batch=4 // world), 0, world)
        assert sorted(len(e.tokens) for group in plan for e in group) == sorted(
            len(e.tokens) for e in examples
        )


def test_no_room_for_the_output_has_an_exit_code_of_its_own(tiny: Path, tmp_path: Path) -> None:
    full = tmp_path / "out/adapter.partial"
    body = f"    def finish(self, context):\n        __import__('os').symlink('/dev/full', {str(full)!r})\n"
    code, said, out = run(tmp_path, tiny, submission(tmp_path / "mine", body))
    assert code == NO_ROOM, said
    assert "no room is left" in said and "Traceback" not in said
    assert not (out / "adapter.safetensors").exists() and not (out / "report.json").exists()
