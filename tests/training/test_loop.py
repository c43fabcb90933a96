"""The trainer as the container runs it: exit codes, determinism, several processes, its numbers."""

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from emperf.training.__main__ import NO_ROOM
from emperf.training.__main__ import run as run_trainer
from emperf.training.data import Example
from emperf.training.job import Job, Lora, Recipe
from emperf.training.loop import part_of, plan_batches
from emperf.work import outputs

REFERENCE = Path(__file__).parents[2] / "reference_impls"


def recipe(**changes: object) -> Recipe:
    return Recipe.parse(
        {"lora": {"r": 4, "alpha": 8}, "learning_rate": 5e-3, "epochs": 1, "micro_batch": 4, "threads": 1}
        | changes
    )


def prepared(
    tmp: Path, model: Path, parameters: dict[str, object] | None = None, **changes: object
) -> tuple[Path, Path]:
    """(/in, /out) of a job of 24 rows on a tiny model."""
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
    return inputs, out


def run(
    tmp: Path, model: Path, submission: Path = REFERENCE / "none", parameters: dict[str, object] | None = None,
    walls: Sequence[str] = (), **changes: object,
) -> tuple[int, str, Path]:  # fmt: skip
    """(exit code, stdout and stderr, output folder) of the real entry point. `walls`: what to start it by."""
    inputs, out = prepared(tmp, model, parameters, **changes)
    trainer = [sys.executable, "-m", "emperf.training", "--in", inputs, "--out", out]
    done = subprocess.run(
        [*walls, *trainer, "--submission", submission],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, done.stdout + done.stderr, out


def run_here(
    tmp: Path, model: Path, submission: Path = REFERENCE / "none", parameters: dict[str, object] | None = None,
    **changes: object,
) -> tuple[int, str, Path]:  # fmt: skip
    """The same in this process, where the libraries are imported already."""
    inputs, out = prepared(tmp, model, parameters, **changes)
    log = io.StringIO()
    with contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
        code = run_trainer(inputs, out, submission)
    return code, log.getvalue(), out


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


def same_training(one: Path, other: Path) -> None:
    """Two output folders hold the same weights and numbers, but for rounding."""
    a, b = (outputs.read_report(out / "report.json") for out in (one, other))
    assert (a["steps"], a["tokens"]) == (b["steps"], b["tokens"])
    assert a["losses"] == pytest.approx(b["losses"], abs=1e-4)
    assert a["gradient_norms"] == pytest.approx(b["gradient_norms"], abs=1e-3)
    c, d = (load_file(out / "adapter.safetensors") for out in (one, other))
    assert max(float((c[name] - d[name]).abs().max()) for name in c) < 1e-4


def test_two_processes_train_as_one_does(tiny: Path, tmp_path: Path) -> None:
    # The two processes seldom hold as many tokens as each other.
    _, _, one = run_here(tmp_path / "one", tiny, micro_batch=6)
    code, log, two = run(tmp_path / "two", tiny, micro_batch=3, processes=2)
    assert code == 0, log
    report = outputs.read_report(two / "report.json")
    assert report["steps"] == 4 and report["losses"][-1] < report["losses"][0]
    same_training(one, two)


def test_micro_batches_train_as_one_batch_does(tiny: Path, tmp_path: Path) -> None:
    _, _, whole = run_here(tmp_path / "whole", tiny, micro_batch=24, epochs=3)
    code, log, parts = run_here(tmp_path / "parts", tiny, micro_batch=5, accumulation=5, epochs=3)
    assert code == 0, log
    same_training(whole, parts)


def test_a_process_for_which_no_row_is_left_counts_for_nothing() -> None:
    examples = [Example((1, 2, 3, 4), 2), Example((1, 2, 3), 2)]
    assert part_of(examples, 1, 2) == ([examples[1]], 1)
    assert part_of(examples[:1], 1, 2) == ([examples[0]], 0)
    assert part_of(examples, 0, 1) == (examples, 3)


# Of the trainer as it was when they were written: a change of these is a change of every score.
GOLDEN = [
    5.529793, 5.403059, 5.177239, 4.886156, 4.539724, 4.337136,
    4.37634, 4.218771, 4.00407, 3.977204, 3.924415, 3.863189,
]  # fmt: skip


def test_the_losses_are_those_that_they_always_were(tiny: Path, tmp_path: Path) -> None:
    code, log, out = run_here(tmp_path, tiny, epochs=2)
    assert code == 0, log
    report = json.loads((out / "report.json").read_text())
    assert report["losses"] == pytest.approx(GOLDEN, abs=1e-5)


@pytest.mark.parametrize(("changes", "known"), [({"zero_stage": 0}, False), ({"zero_stage": 2}, True)])
def test_a_norm_that_is_not_known_is_null(
    tiny: Path, tmp_path: Path, changes: dict[str, object], known: bool
) -> None:
    code, log, out = run_here(tmp_path, tiny, **changes)
    assert code == 0, log
    norms = json.loads((out / "report.json").read_text())["gradient_norms"]
    assert len(norms) == 6 and all((norm is not None and norm > 0) == known for norm in norms)
    assert outputs.read_report(out / "report.json")["gradient_norms"] == norms


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
            "Mine.loss failed at step 0 (mitigation.py, line 6): KeyError",
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
