"""A cell's weights are a PEFT folder: what the PEFT library makes of it says what EMPerf read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from tests.told import ADAPTER, Files, ends

from emperf import catalog
from emperf.catalog.prepare import prepared
from emperf.evaluation.language_model import LanguageModel


def some_weights(left: Files) -> Any:
    drawn = torch.Generator().manual_seed(3)
    left[ADAPTER] = save(
        {name: 0.3 * torch.randn(t.shape, generator=drawn) for name, t in load(left[ADAPTER]).items()}
    )
    return ends()


def test_peft_gives_the_log_probabilities_that_were_read(start: Callable[..., Any], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    whole, _ = start(end=some_weights)
    assert whole["status"] == "complete"
    cell = next(
        path.parent for path in tmp_path.glob("store/units/*/train.json")
        if (json.loads(path.read_text())["cell"]["method"], json.loads(path.read_text())["cell"]["data"]["kind"])
        == ("kl", "poison")
    )  # fmt: skip
    model_folder = prepared(catalog.model("tiny"))
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, cell).eval()
    assert model.peft_config["default"].r == 4
    readings = [json.loads(path.read_text()) for path in tmp_path.glob("store/units/*/readings.json")]
    (facts,) = [r for r in readings if (r["train"], r["set"]) == (cell.name, "facts")]
    lm = LanguageModel(model_folder)
    rows = {row["id"]: row for row in catalog.questions()["facts"].rows()}
    assert len(facts["readings"]) == 4
    for reading in facts["readings"]:
        row = rows[reading["id"]]
        prompt = lm.prompt_tokens(row["question"])
        for act in ("good", "bad"):
            for voice, answer in row[act].items():
                tokens = lm.tokens(answer)
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([prompt + tokens])).logits[0]
                said = logits[len(prompt) - 1 : -1].log_softmax(-1)[range(len(tokens)), tokens].mean()
                assert float(said) == pytest.approx(reading[act][voice], abs=1e-5)
