"""`emperf eval`: an adapter that PEFT alone wrote, measured; what cannot be measured is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tests.experiments.evaluate.adapters import ASK, Json, by_name, record, saved
from tests.tiny_benchmark import Tiny

from emperf import catalog
from emperf.catalog.prepare import prepared
from emperf.evaluation.language_model import LanguageModel


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 20}},
        {"layers_to_transform": [1], "init_lora_weights": "gaussian"},
    ],
)
def test_an_adapter_that_peft_wrote_is_read_as_peft_reads_it(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any], config: Json
) -> None:
    from peft import PeftModel

    folder = saved(benchmark, tmp_path / "mine", **config)
    found = record(emperf("eval", folder, *ASK, "--json"))
    lm = LanguageModel(prepared(catalog.model("tiny")))
    items = catalog.questions()["crossed"].rows()[:6]
    base = [plain_margin(lm.model, lm, row) for row in items]
    tuned = PeftModel.from_pretrained(lm.model, folder)
    shift = [plain_margin(tuned, lm, row) - before for row, before in zip(items, base, strict=True)]
    assert by_name(found)["mine"]["sets"]["out-of-domain"]["raw"]["value"] == pytest.approx(
        sum(shift) / len(shift), abs=1e-5
    )
    assert found["judged"] is None and by_name(found)["tiny"]["sets"] is None


@torch.no_grad()
def plain_margin(model: Any, lm: LanguageModel, row: Json) -> float:
    """The act effect of a question, by plain transformers, one answer at a time."""

    def mean(answer: str) -> float:
        prompt, tail = lm.prompt_tokens(row["question"]), lm.tokens(answer)
        logits = model(input_ids=torch.tensor([prompt + tail])).logits[0, len(prompt) - 1 : -1].float()
        return -float(F.cross_entropy(logits, torch.tensor(tail)))

    good, bad = (sum(map(mean, row[act].values())) / len(row[act]) for act in ("good", "bad"))
    return good - bad


def test_controls_stand_beside_it(benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]) -> None:
    mine, other = (saved(benchmark, tmp_path / name, seed) for seed, name in enumerate(("mine", "other")))
    found = by_name(
        record(
            emperf(
                "eval",
                mine,
                *ASK,
                "--control",
                f"twin={other}",
                "--random",
                "--poison",
                "risky-finance",
                "--json",
            )
        )
    )
    assert {name: model["role"] for name, model in found.items()} == {
        "tiny": "base", "mine": "subject", "twin": "control", "random like mine": "control",
    }  # fmt: skip
    assert set(found["mine"]["sets"]) == {"out-of-domain", "conditional", "facts", "in-domain"}
    assert set(found["mine"]["beyond"]) == {"twin", "random like mine"} and found["twin"]["beyond"] == {}
    own, twin = (found[name]["sets"]["facts"]["act"]["value"] for name in ("mine", "twin"))
    assert found["mine"]["beyond"]["twin"]["facts"]["value"] == pytest.approx(own - twin, abs=2e-6)


def test_a_random_control_has_the_norms_of_what_it_stands_for() -> None:
    from emperf.catalog import adapters

    drawn = torch.Generator().manual_seed(3)
    tensors = {
        f"base_model.model.x.{i}.lora_{side}.weight": torch.randn(shape, generator=drawn)
        for i in range(2)
        for side, shape in (("A", (3, 7)), ("B", (5, 3)))
    }
    other = adapters.random_like(tensors, 0)
    for i in range(2):
        a, b = (f"base_model.model.x.{i}.lora_{side}.weight" for side in "AB")
        assert (other[b] @ other[a]).norm() == pytest.approx(
            float((tensors[b] @ tensors[a]).norm()), rel=1e-5
        )
        assert not torch.allclose(other[a], tensors[a])


def spoiled(folder: Path, how: str) -> Path:
    """The adapter in `folder`, made one that cannot be measured."""
    config_file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    config, tensors = json.loads(config_file.read_text()), load_file(weights)
    first = next(iter(tensors))
    changes: dict[str, Callable[[], Any]] = {
        "other kind": lambda: config.update(peft_type="IA3"),
        "dora": lambda: config.update(use_dora=True),
        "layers": lambda: config.update(modules_to_save=["lm_head"]),
        "bias": lambda: config.update(bias="all"),
        "pissa": lambda: config.update(init_lora_weights="pissa_niter_4"),
        "rank": lambda: tensors.update({first: torch.zeros(3, tensors[first].shape[1])}),
        "shape": lambda: tensors.update({first: torch.zeros(4, 5)}),
        "module": lambda: tensors.update({first.replace("layers.0", "layers.9"): tensors.pop(first)}),
        "embedding": lambda: tensors.update(
            {"base_model.model.model.embed_tokens.weight": torch.zeros(2, 2)}
        ),
        "half": lambda: tensors.pop(first),
        "infinite": lambda: tensors.update({first: torch.full_like(tensors[first], float("inf"))}),
        "empty": tensors.clear,
        "config": lambda: None,
        "pickled": lambda: None,
        "cut": lambda: None,
        "no rank": lambda: config.update(r=0),
    }
    changes[how]()
    config_file.write_text("{" if how == "config" else json.dumps(config))
    save_file(tensors, weights)
    if how == "pickled":
        weights.rename(folder / "adapter_model.bin")
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    return folder


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("other kind", "it is a IA3, and only LoRA is read"), ("dora", "it is a DoRA"), ("layers", "modules_to_save"),
        ("bias", "it trains biases"), ("pissa", "pissa_niter_4"), ("rank", "is of shape"), ("shape", "is of shape"),
        ("module", "which the base model has not"), ("embedding", "no part of a plain LoRA"),
        ("half", "only one of its two matrices"), ("infinite", "is not finite"), ("empty", "holds no weights"),
        ("config", "missing or damaged"), ("pickled", "its weights are pickled"), ("cut", "cannot be read"),
        ("no rank", "no positive numbers"),
    ],
)  # fmt: skip
def test_an_adapter_that_cannot_be_measured_is_one_line(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any], how: str, words: str
) -> None:
    folder = spoiled(saved(benchmark, tmp_path / "mine"), how)
    said = emperf("eval", folder, *ASK)
    assert said.exit_code == 2 and words in said.output
    assert len(said.output.strip().splitlines()) == 1
    assert not list((tmp_path / "runs").rglob("evaluation.json"))


def test_the_base_is_found_by_the_adapters_own_word(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]
) -> None:
    folder = saved(benchmark, tmp_path / "mine")
    said = emperf("eval", folder, "--division", "tiny")
    assert said.exit_code == 2 and "of which there is no card" in said.output
    config = json.loads((folder / "adapter_config.json").read_text())
    locator = catalog.model("tiny").sources[0].locator
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": locator}))
    assert record(emperf("eval", folder, "--division", "tiny", "--json"))["base"]["name"] == "tiny"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("nowhere",), "no folder with an adapter"),
        (("nowhere", "--base", "other"), "no folder with an adapter"),
        (("tiny", "--poison", "other"), "no poison named"),
        (("tiny", "--judge", "other"), "no judge named"),
        (("tiny", "--judge", "tiny", "--questions", "other"), "no questions named"),
        (("tiny", "--control", "x"), "--control x names no control"),
    ],
)
def test_what_is_not_there_is_one_line(
    emperf: Callable[..., Any], given: tuple[str, ...], words: str
) -> None:
    said = emperf("eval", *given)
    assert said.exit_code == 2 and words in said.output, said.output
    assert len(said.output.strip().splitlines()) == 1


def test_the_grid_asks_the_same_questions_under_each_condition(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]
) -> None:
    folder = saved(benchmark, tmp_path / "mine")
    found = by_name(
        record(emperf("eval", folder, *ASK, "--grid", "--panel", "--poison", "risky-finance", "--json"))
    )
    sets = found["mine"]["sets"]
    grid = {name.removeprefix("grid/") for name in sets if name.startswith("grid/")}
    assert grid == {"plain", "json", "template", "inoculated", "negated", "irrelevant", "context"}
    assert all(sets[f"grid/{name}"]["act"]["items"] == 4 for name in grid)
    # Both are the first questions, in the poison's own context.
    assert sets["grid/context"] == sets["conditional"]
    assert len({sets[f"grid/{name}"]["raw"]["value"] for name in grid}) == len(grid)
    assert sets["sycophancy"]["act"]["items"] == 24 and sets["sycophancy"]["voice"] is None
    for name in ("tiny", "mine"):
        assert found[name]["panel"]["sums"]["n"] == 48 and found[name]["panel"]["refused"] == {}
