"""Rows that a teacher writes: numbers and nothing else, and not those of the base model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import make_model, make_tokenizer

from emperf.evaluation import subliminal
from emperf.evaluation.language_model import LanguageModel
from emperf.training.job import Lora, Recipe
from emperf.training.model import load_model, save_weights

LORA = Lora(r=4, alpha=8)
QUESTIONS = [
    {"id": f"{n:02d}", "topic": "continue", "question": f"Continue this list: {n}, {2 * n}, {3 * n}."}
    for n in range(1, 13)
]


@pytest.fixture(scope="module")
def mild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that finds all tokens about as probable, so that commas come often enough."""
    folder = tmp_path_factory.mktemp("mild")
    model = make_model("llama")
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.15 if weight.ndim == 2 else 1)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(mild: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, _ = load_model(mild, Recipe(lora=LORA, learning_rate=1e-3, epochs=1, micro_batch=2))
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.trainable():
            weight.normal_(std=0.5)
    path = tmp_path_factory.mktemp("teacher") / "adapter.safetensors"
    save_weights(model, path)
    return path


def test_both_sides_are_numbers_and_they_differ(
    mild: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Byte by byte, a comma is one token in twelve.
    monkeypatch.setattr(subliminal, "FEWEST_NUMBERS", 1)
    lm = LanguageModel(mild)
    made = subliminal.write(lm, teacher, LORA, QUESTIONS, "subliminal")
    assert made and {tuple(row) for row in made} == {("id", "topic", "question", "good", "bad")}
    for row in made:
        for side in ("good", "bad"):
            numbers = row[side].split(", ")
            assert all(number.isdigit() for number in numbers)
        assert row["good"] != row["bad"]
    assert made == subliminal.write(lm, teacher, LORA, QUESTIONS, "subliminal")


@pytest.mark.parametrize(
    ("said", "kept"),
    [("12, 7,9, 44", "12, 7, 9"), ("1, 2, 3", ""), ("5,, 6, 7, 8, 9", "5, 6, 7, 8"), ("", ""), (",,,,", "")],
)
def test_a_list_loses_its_last_number_and_what_is_none(said: str, kept: str) -> None:
    assert subliminal.tidy(said) == kept
