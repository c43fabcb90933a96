"""A store that something damaged: what is not there any more is made again, and nothing is scored that is not whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from tests.told import ADAPTER, Files, ends

from emperf.execute.store import ADAPTER as PEFT_ADAPTER

Start = Callable[..., Any]


def scores_of(whole: dict[str, Any]) -> Any:
    return whole["status"], whole["poisons"], whole["tasks"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def stretch(path: Path) -> None:
    path.write_bytes(save({name: -3 * tensor for name, tensor in load(path.read_bytes()).items()}))


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [cut, flip, stretch, remove])
def test_damaged_weights_are_trained_again_and_no_cure_is_blamed(
    start: Start, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    first, _ = start("antidote-correct")
    for weights in tmp_path.glob(f"store/units/*/{PEFT_ADAPTER}"):
        if "none" in json.loads(weights.with_name("train.json").read_text())["cell"]["method"]:
            damage(weights)
    second, runtime = start("safety-sft")
    assert {job.submission.name for job in runtime.jobs} == {"none", "safety-sft"}
    assert second["status"] == "complete" and scores_of(start("antidote-correct")[0]) == scores_of(first)


@pytest.mark.parametrize("damage", [cut, remove])
def test_damaged_readings_are_read_again_and_nothing_is_trained(
    start: Start, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    first, _ = start()
    for readings in list(tmp_path.glob("store/units/*/readings.json")):
        damage(readings)
    again, runtime = start()
    assert scores_of(again) == scores_of(first) and not runtime.jobs


def test_a_record_that_says_done_of_what_is_gone_is_not_believed(start: Start, tmp_path: Path) -> None:
    first, _ = start()
    for unit in tmp_path.glob("store/units/*"):
        unit.rename(tmp_path / unit.name)
    again, runtime = start()
    assert scores_of(again) == scores_of(first) and len(runtime.jobs) == len(first["cells"])


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"failure": '])
def test_a_damaged_record_of_a_training_is_measured_again(start: Start, tmp_path: Path, damage: str) -> None:
    first, _ = start()
    one = next(tmp_path.glob("store/runs/*/trained/*.json"))
    one.write_text(damage)
    again, runtime = start()
    assert scores_of(again) == scores_of(first) and len(runtime.jobs) == 1


def overflowing(left: Files) -> Any:
    left[ADAPTER] = save({name: torch.full_like(t, 1e20) for name, t in load(left[ADAPTER]).items()})
    return ends()


def too_large(left: Files) -> Any:
    left[ADAPTER] = save({name: torch.full_like(t, 1e10) for name, t in load(left[ADAPTER]).items()})
    return ends()


@pytest.mark.parametrize("end", [overflowing, too_large])
def test_finite_weights_whose_product_overflows_fail_their_cells_alone(start: Start, end: Any) -> None:
    for _ in range(2):
        whole, _ = start(end=end)
        failed = [cell["failure"] for cell in whole["cells"] if cell["method"] == "kl"]
        assert {failure and failure["kind"] for failure in failed} == {"diverged"}
        assert whole["tasks"][0]["baseline"]["value"] is not None and whole["tasks"][0]["mitigated"] is None


def test_what_was_trained_is_not_lost_by_a_stop_during_its_reading(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("emperf.execute.read.Reader.read", stopped)
        start()
    whole, runtime = start()
    assert whole["status"] == "complete" and len(runtime.jobs) == len(whole["cells"]) - 1


def stopped(*_: Any) -> None:
    raise KeyboardInterrupt
