"""What `emperf new` makes is a submission whose class trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from emperf import catalog
from emperf.core.errors import UserError
from emperf.tools import scaffold
from emperf.training import Mitigation, Step
from emperf.training.__main__ import load_mitigation


def test_it_is_a_submission_whose_class_is_a_mitigation(tmp_path: Path) -> None:
    folder = scaffold.new("my-idea-2", tmp_path)
    submission = catalog.submission(folder)
    cls = load_mitigation(folder)
    assert (submission.name, cls.__name__) == ("my-idea-2", "MyIdea2")
    assert issubclass(cls, Mitigation)
    assert cls(**submission.values({"weight": "0.5"})).weight == 0.5
    assert (folder / "README.md").read_text().startswith("# my-idea-2\n")


def test_its_loss_differs_from_the_baseline_only_by_drift(tmp_path: Path) -> None:
    mitigation = load_mitigation(scaffold.new("my-idea", tmp_path))(weight=2.0)
    logits = torch.tensor([[1.0, 2.0], [0.0, 3.0]], requires_grad=True)

    def loss(base: torch.Tensor) -> torch.Tensor:
        batch = SimpleNamespace(targets=torch.tensor([0, 1]))
        step = Step(context=SimpleNamespace(), batch=batch, index=0)
        step.__dict__["_own"] = (logits, {})
        step.__dict__["_base"] = (base, {})
        return mitigation.loss(step)

    plain = loss(logits.detach() + 5)
    # Halves of the differences 1 and 3, squared: (0.25 + 2.25) / 2 on average, twice.
    drifted = loss(torch.zeros(2, 2))
    assert float((drifted - plain).detach()) == pytest.approx(2 * 1.25)
    assert torch.autograd.grad(drifted, logits)[0].abs().sum() > 0


def test_its_code_keeps_the_projects_style(tmp_path: Path) -> None:
    folder = scaffold.new("my-idea", tmp_path)
    root = Path(__file__).parents[2]
    for command in (["ruff", "check"], ["ruff", "format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", *command, "--config", root / "pyproject.toml", folder],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "name", ["My-Idea", "2fast", "", "a/b", "../x", "-a", "a--b", "kl", "none", "true", "step"]
)
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError):
        scaffold.new(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "my-idea").mkdir()
    with pytest.raises(UserError, match="there already"):
        scaffold.new("my-idea", tmp_path)
