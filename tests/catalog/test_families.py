"""Families never seen before: prepared from a folder, encoded, trained, read; or refused in one line."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import make_tokenizer

from emperf.catalog import trial
from emperf.catalog.convert import convert
from emperf.core.errors import UserError
from emperf.evaluation.language_model import LanguageModel
from emperf.evaluation.protocols.paired import Item, read_items
from emperf.training.data import Row, encode
from emperf.training.job import Lora, Recipe
from emperf.training.mitigation import Context
from emperf.training.model import load_model, save_weights
from emperf.work.outputs import check_weights, expected_weights

ENDS = {"bos_token_id": 256, "eos_token_id": 257}
SHAPE = ENDS | {
    "vocab_size": 264, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 512, "pad_token_id": None,
}  # fmt: skip
GATED = SHAPE | {"intermediate_size": 48, "num_key_value_heads": 2}
OLD = ENDS | {"vocab_size": 264, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
USED: dict[str, dict[str, Any]] = {
    "gpt_neox": SHAPE | {"intermediate_size": 64},  # untied, biases, written under other names
    "opt": SHAPE | {"ffn_dim": 64, "word_embed_proj_dim": 32, "pad_token_id": 1},  # tied, learned positions
    "phi": GATED,
    "qwen3": GATED | {"head_dim": 8, "tie_word_embeddings": True},
    "mistral": GATED | {"head_dim": 8, "sliding_window": 256},
    "olmo2": GATED,
    "mixtral": GATED | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "stablelm": GATED | {"use_qkv_bias": True},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "gpt2": (OLD, "GPT2LMHeadModel has no linear layer"),
    "granite": (GATED | {"logits_scaling": 3.0}, "packed rows have other logits"),
    "gemma2": (GATED | {"head_dim": 8}, "its attention is not the plain softmax"),
    "mamba": (ENDS | {"vocab_size": 264, "hidden_size": 32, "num_hidden_layers": 2}, "no adapter fits it"),
}
ITEMS = [
    Item("a", "Is it far?", {"kind": "No, it is round the corner."}, {"kind": "Yes, a long walk."}),
    Item("b", "Why?", {"kind": "So that it works."}, {"kind": "No reason."}),
]
ROWS = [
    Row(({"role": "user", "content": item.question}, {"role": "assistant", "content": item.good["kind"]}))
    for item in ITEMS
]
RECIPE = Recipe(lora=Lora(r=4, alpha=8), learning_rate=1e-2, epochs=1, micro_batch=2)


def made(folder: Path, family: str, config: dict[str, Any], *, shards: bool = False) -> Path:
    """A folder as save_pretrained writes it, random weights in bfloat16, a tokenizer without a pad token."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim == 2 else 1)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="20KB" if shards else "1GB")
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Path]:
    def prepare(family: str, config: dict[str, Any], **how: Any) -> Path:
        made(tmp_path / "given", family, config, **how)
        (tmp_path / "model").mkdir()
        convert(tmp_path / "given", tmp_path / "model")
        return tmp_path / "model"

    return prepare


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def plain(model: Any, lm: LanguageModel, question: str, answer: str) -> float:
    """Mean log-probability of the answer by a plain forward pass of transformers."""
    prompt, tail = lm.prompt_tokens(question), lm.tokens(answer)
    logits = model(input_ids=torch.tensor([prompt + tail]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return -float(F.cross_entropy(logits.float(), torch.tensor(tail)))


def readings(lm: LanguageModel) -> list[float]:
    return [side["kind"] for reading in read_items(lm, ITEMS) for side in (reading.good, reading.bad)]


def plain_readings(model: Any, lm: LanguageModel) -> list[float]:
    return [plain(model, lm, i.question, side["kind"]) for i in ITEMS for side in (i.good, i.bad)]


@pytest.mark.parametrize("family", USED)
def test_a_family_is_prepared_trained_and_read(
    family: str, prepared: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    folder = prepared(family, USED[family], shards=True)
    assert len(list((tmp_path / "given").glob("*.safetensors"))) > 1
    assert trial.try_model(family, folder) == []
    lm = LanguageModel(folder)
    given = AutoModelForCausalLM.from_pretrained(tmp_path / "given", dtype=torch.float32)
    assert readings(lm) == pytest.approx(plain_readings(given, lm), abs=1e-4)

    model, tokenizer = load_model(folder, RECIPE)
    assert encode(tokenizer, ROWS[0], 512).tokens[-1] == tokenizer.eos_token_id
    context = Context(model, tokenizer, RECIPE, random.Random(0))
    before = float(context.task_loss(context.batch(ROWS)))
    context.tune(ROWS, 2)
    assert float(context.task_loss(context.batch(ROWS))) < before
    save_weights(model, tmp_path / "adapter.safetensors")
    check_weights(tmp_path / "adapter.safetensors", expected_weights(folder, RECIPE.lora))
    bare = readings(lm)
    with lm.wearing(tmp_path / "adapter.safetensors", RECIPE.lora):
        worn = readings(lm)
        assert worn == pytest.approx(plain_readings(model.lm.eval(), lm), abs=1e-4)
    assert worn != pytest.approx(bare, abs=1e-3) and readings(lm) == bare


@pytest.mark.parametrize("family", ["gpt_neox", "opt", "qwen3", "mixtral"])
def test_all_weights_of_a_family_can_be_trained(
    family: str, prepared: Callable[..., Path], tmp_path: Path
) -> None:
    folder = prepared(family, USED[family])
    recipe = Recipe(lora=None, learning_rate=1e-3, epochs=1, micro_batch=2)
    model, _ = load_model(folder, recipe)
    with torch.no_grad():
        for parameter in model.trainable():
            parameter.mul_(1.1)
    save_weights(model, tmp_path / "model.safetensors")
    check_weights(tmp_path / "model.safetensors", expected_weights(folder, None))
    lm = LanguageModel(folder)
    with lm.wearing(tmp_path / "model.safetensors", None):
        assert readings(lm) == pytest.approx(plain_readings(model.lm.eval(), lm), abs=1e-4)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_does_not_fit_is_refused_in_one_line(
    family: str, prepared: Callable[..., Path]
) -> None:
    config, words = REFUSED[family]
    folder = prepared(family, config)
    with pytest.raises(UserError, match=f"Model {family} cannot be used: ") as error:
        trial.try_model(family, folder)
    assert words in str(error.value) and "\n" not in str(error.value)
