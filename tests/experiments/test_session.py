"""The division, not the machine, decides where it is run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from emperf import catalog
from emperf.core.errors import UserError
from emperf.experiments import session


@pytest.mark.parametrize("gpus", [0, 8])
def test_a_division_of_the_cpu_uses_no_gpu(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert session.gpus_of(catalog.division("smoke")) == ()


def test_a_division_of_gpus_takes_those_that_there_are_or_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    division = replace(catalog.division("smoke"), device="cuda")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert session.gpus_of(division) == (0, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="smoke is run on GPUs, and torch sees none here"):
        session.gpus_of(division)
