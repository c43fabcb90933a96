"""Two-layer random models of three families with a byte-level tokenizer, made here: no download, any text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

FAMILIES = ("llama", "qwen2", "gemma3")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer() -> Any:
    """A byte-level tokenizer of 259 tokens with the chat template above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for special in ("<|im_start|>", "<|im_end|>", "<|pad|>"):
        vocab[special] = len(vocab)
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(family: str) -> Any:
    """The same weights at every call. Qwen2's attention has biases, Gemma 3's a sliding window."""
    from transformers import (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    shape: dict[str, Any] = {
        "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258,
    }  # fmt: skip
    kinds: dict[str, Any] = {
        "llama": (LlamaForCausalLM, LlamaConfig),
        "qwen2": (Qwen2ForCausalLM, Qwen2Config),
        "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig),
    }
    kind, config = kinds[family]
    if family == "gemma3":
        shape |= {"head_dim": 8, "sliding_window": 512}
    torch.manual_seed(0)
    model = kind(config(**shape))
    with torch.no_grad():
        # Fresh weights are too small for one token to differ from another beyond rounding.
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim == 2 else 1)
    return model


def save_tiny(folder: Path, family: str = "llama") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    make_model(family).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
