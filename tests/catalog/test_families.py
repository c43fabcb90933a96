"""Families never seen before: prepared from a folder, encoded, trained, read; or refused in one line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import make_tokenizer

from emperf.catalog import trial
from emperf.catalog.convert import convert
from emperf.core.errors import UserError
from emperf.evaluation.generate import generate
from emperf.evaluation.language_model import LanguageModel
from emperf.evaluation.protocols.paired import Item, read_items
from emperf.training.data import Batch, Row, encode
from emperf.training.job import TRANSPOSED, Lora, Recipe, model_type
from emperf.training.mitigation import Context
from emperf.training.model import ResponseModel, load_model, save_weights
from emperf.work import outputs
from emperf.work.outputs import check_weights, expected_weights
from emperf.work.peft import adapter_config

ENDS = {"bos_token_id": 256, "eos_token_id": 257}
SHAPE = ENDS | {
    "vocab_size": 264, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 512, "pad_token_id": None,
}  # fmt: skip
GATED = SHAPE | {"intermediate_size": 48, "num_key_value_heads": 2}
OLD = ENDS | {"vocab_size": 264, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
MIXED = GATED | {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = MIXED | {
    "num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8,
    "v_head_dim": 6, "head_dim": 4, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}  # fmt: skip
STATES = {
    "head_dim": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
# The model's type, and what else tells it from others of the type.
USED: dict[str, dict[str, Any]] = {
    "gpt_neox": SHAPE | {"intermediate_size": 64},  # untied, biases, written under other names
    "opt": SHAPE | {"ffn_dim": 64, "word_embed_proj_dim": 32, "pad_token_id": 1},  # tied, learned positions
    "phi": GATED,
    "qwen3": GATED | {"head_dim": 8, "tie_word_embeddings": True},
    "mistral": GATED | {"head_dim": 8, "sliding_window": 256},
    "olmo2": GATED,
    "mixtral": GATED | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "stablelm": GATED | {"use_qkv_bias": True},
    # scores and logits capped
    "gemma2": GATED
    | {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "granite": GATED | {"logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "cohere": GATED | {"logit_scale": 0.25},
    "cohere2": GATED | {"head_dim": 8, "sliding_window": 256, "logit_scale": 0.25},
    "gpt2": OLD,  # weights stored as [in, out]
    "gpt_bigcode": OLD,  # one head of keys
    "gpt_neo": ENDS
    | {
        "vocab_size": 264, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 512,
        "attention_types": [[["global", "local"], 1]], "window_size": 32,
    },
    "falcon": SHAPE,
    "falcon with-groups": SHAPE | {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon with-alibi": SHAPE | {"alibi": True, "multi_query": False},
    "bloom": ENDS | {"vocab_size": 264, "hidden_size": 32, "n_layer": 2, "n_head": 4},  # ALiBi, by the mask
    "mpt": ENDS
    | {"vocab_size": 264, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512, "expansion_ratio": 2},
    # sinks, fused experts, a window shorter than the rows
    "gpt_oss": GATED | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 32},
    "qwen2_moe": MIXED | {"num_experts": 4, "shared_expert_intermediate_size": 16},
    "qwen3_moe": MIXED | {"head_dim": 8, "num_experts": 4},
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,  # a buffer that is saved
    "dots1": MIXED
    | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1},
    # states from token to token
    "qwen3_next": MIXED | STATES | {"num_experts": 4, "shared_expert_intermediate_size": 16},
    "qwen3_5_text": GATED | STATES,
    "lfm2": GATED | {"layer_types": ["conv", "full_attention"]},
    "granitemoehybrid": GATED
    | {
        "layer_types": ["mamba", "attention"], "mamba_n_heads": 8, "mamba_d_state": 8, "shared_intermediate_size": 32,
        "num_local_experts": 0, "logits_scaling": 2.0,
    },
    "jamba": GATED
    | {
        "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8,
        "use_mamba_kernels": False,
    },
    "doge": GATED | {"head_dim": 8},  # a mask a head
}  # fmt: skip
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "mamba": (ENDS | {"vocab_size": 264, "hidden_size": 32, "num_hidden_layers": 2}, "no adapter fits it"),
    "openai-gpt": (OLD, "transformer.h.0.attn.c_attn is stored as a matrix"),
    "llama4_text": (
        GATED | {"head_dim": 8, "num_local_experts": 4, "intermediate_size_mlp": 48},
        "transformers does not tell its decoder from its head",
    ),
    "hyperclovax": (GATED | {"logits_scaling": 2.0}, "rows in a batch have other logits than alone"),
    "recurrent_gemma": (
        GATED | {"head_dim": 8, "lru_width": 32, "attention_window_size": 64},
        "rows in a batch have other logits than alone",
    ),
    "rwkv": (
        ENDS | {"vocab_size": 264, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
        "it keeps no cache",
    ),
    "minimax": (
        MIXED
        | {"head_dim": 8, "num_local_experts": 4, "layer_types": ["linear_attention", "full_attention"]},
        "it keeps no cache",
    ),
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
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.partition(" ")[0], **config))
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


def losses_alone(model: ResponseModel, batch: Batch) -> torch.Tensor:
    """The loss of a batch by plain forward passes of transformers, a row at a time and without padding."""
    logits = []
    for tokens, attention, response in zip(batch.tokens, batch.attention, batch.response, strict=True):
        length = int(attention.sum())
        own = model.lm(input_ids=tokens[None, :length], use_cache=False).logits[0, :-1]
        logits.append(own[response[1:length]])
    return F.cross_entropy(torch.cat(logits).float(), batch.targets)


def with_peft(folder: Path, weights: Path) -> Any:
    """The model of plain transformers with the adapter as the PEFT library loads it from a cell's folder."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert RECIPE.lora is not None
    transposed = model_type(folder) in TRANSPOSED
    config = adapter_config(RECIPE.lora, outputs.linear(folder), transposed=transposed)
    assert config.get("fan_in_fan_out", False) == (model_type(folder) == "gpt2")
    (weights.parent / "adapter_config.json").write_text(json.dumps(config))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return PeftModel.from_pretrained(base, weights.parent).eval()


def greedy(model: Any, lm: LanguageModel, prompt: list[int]) -> list[int]:
    """New tokens by transformers' own generation, up to the end of the turn."""
    given = torch.tensor([prompt])
    out = model.generate(
        input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=12, do_sample=False,
        eos_token_id=sorted(lm.stop_tokens), pad_token_id=0,
    )  # fmt: skip
    return [token for token in out[0, len(prompt) :].tolist() if token not in lm.stop_tokens]


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
    assert len(model.layers) == 2
    assert encode(tokenizer, ROWS[0], 512).tokens[-1] == tokenizer.eos_token_id
    context = Context(model, tokenizer, RECIPE, random.Random(0))
    batch = context.batch(ROWS)
    before = float(context.task_loss(batch))
    context.tune(ROWS, 2)
    assert float(context.task_loss(batch)) < before
    ours, plainly = (
        context.gradient(loss(batch)) for loss in (context.task_loss, partial(losses_alone, model))
    )
    apart, size = (
        sum(float(g.square().sum()) for g in gs) ** 0.5 for gs in (differences(ours, plainly), plainly)
    )
    assert apart < 1e-3 * size
    weights = tmp_path / "unit" / "adapter_model.safetensors"
    save_weights(model, weights)
    check_weights(weights, expected_weights(folder, RECIPE.lora))
    again, _ = load_model(folder, RECIPE, weights)
    assert float(F.cross_entropy(again.predict(batch), batch.targets)) == float(context.task_loss(batch))
    bare, tuned = readings(lm), with_peft(folder, weights)
    with lm.wearing(weights, RECIPE.lora):
        worn = readings(lm)
        assert worn == pytest.approx(plain_readings(tuned, lm), abs=1e-4)
        prompts = [lm.prompt_tokens(question) for question in ("Is it far?", "Why?", "What is that? " * 6)]
        assert generate(lm, prompts, max_new_tokens=12) == [greedy(tuned, lm, prompt) for prompt in prompts]
    assert worn != pytest.approx(bare, abs=1e-3) and readings(lm) == bare


def differences(ours: list[torch.Tensor], others: list[torch.Tensor]) -> list[torch.Tensor]:
    return [a - b for a, b in zip(ours, others, strict=True)]


@pytest.mark.parametrize(
    "family", ["gpt_neox", "opt", "qwen3", "mixtral", "gpt2", "bloom", "gpt_oss", "deepseek_v3"]
)
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
