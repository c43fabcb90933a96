"""A model folder of any make to the one form that containers see: one safetensors file in float32, and a tokenizer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from emperf.core.errors import UserError

POINTER = b"version https://git-lfs"
INDEX = "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.tiktoken")
AS_SAVED = "Give a folder as save_pretrained writes it."


def convert(place: Path, into: Path, gguf_file: str | None = None) -> None:
    """Load the model in `place` once and save it `into`, with its tokenizer. Raises UserError, one line a cause."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if not gguf_file:
        check_folder(place)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            place, local_files_only=True, **({"gguf_file": gguf_file} if gguf_file else {})
        )
    except Exception as error:  # each tokenizer's reader raises what it likes
        raise UserError(f"The tokenizer in {place} cannot be read ({line(error)})", AS_SAVED) from None
    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer in {place} cannot be written as tokenizer.json",
            "Give a model that has that file.",
        )
    model = load(place, gguf_file)
    try:
        save(model, into)
    except ValueError as error:
        raise UserError(f"The model in {place} cannot be saved ({line(error)})", AS_SAVED) from None
    tokenizer.save_pretrained(into)


def check_folder(place: Path) -> None:
    """Raises UserError for what a look at the files shows: some are missing, cut or no more than pointers."""
    if not place.is_dir():
        raise UserError(f"There is no folder {place}", AS_SAVED)
    if not (place / "config.json").is_file():
        raise UserError(f"{place} holds no model (no config.json)", AS_SAVED)
    for file in sorted(place.iterdir()):
        if file.is_file() and read_head(file) == POINTER:
            raise UserError(
                f"{file} is a Git LFS pointer, not the file itself",
                f"Run git lfs pull in {place}, then this again.",
            )
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        kind = config["model_type"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{place / 'config.json'} names no model_type", AS_SAVED) from None
    check_weights(place)
    if not any(list(place.glob(name)) for name in TOKENIZERS):
        raise UserError(
            f"{place} holds no tokenizer ({', '.join(TOKENIZERS)})", "Copy the model's tokenizer there."
        )
    check_kind(place, kind, config)


def check_weights(place: Path) -> None:
    from safetensors import safe_open

    index = place / INDEX
    try:
        named = (
            set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if index.is_file()
            else set()
        )
    except (ValueError, KeyError, AttributeError):
        raise UserError(f"{index} is damaged", "Fetch the folder again.") from None
    absent = sorted(name for name in named if not (place / name).is_file())
    if absent:
        raise UserError(f"{place} lacks {absent[0]}, which {INDEX} names", "Fetch the folder again.")
    files = sorted(place / name for name in named) or sorted(place.glob("*.safetensors"))
    if not files and list(place.glob("*.bin")):
        raise UserError(
            f"{place} holds its weights as .bin alone, which may hold pickled code, and is not opened",
            "Save them as safetensors (save_pretrained does), or give a revision that has them.",
        )
    if not files:
        raise UserError(f"{place} holds no weights (no *.safetensors)", AS_SAVED)
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                tensors.keys()
        except Exception as error:
            raise UserError(
                f"{file} is cut off or damaged ({line(error)})", "Fetch that file again, whole."
            ) from None


def check_kind(place: Path, kind: str, config: dict[str, Any]) -> None:
    import transformers
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    version = f"transformers {transformers.__version__}"
    if kind not in CONFIG_MAPPING:
        own = " and needs code of its own, which is not run" if "auto_map" in config else ""
        raise UserError(
            f"{place}: the model type {kind!r} is not known to {version}{own}",
            "Choose a model that it knows.",
        )
    if CONFIG_MAPPING[kind] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{place}: a model of type {kind!r} does not write text, for {version}",
            "Give a causal language model.",
        )
    if "quantization_config" in config:
        raise UserError(
            f"{place} holds quantised weights", "Give the model's plain weights (float32 or bfloat16)."
        )


def load(place: Path, gguf_file: str | None = None) -> Any:
    """The model in float32. Raises UserError, for weights that the file does not have, too."""
    import torch
    from transformers import AutoModelForCausalLM

    extra = {"gguf_file": gguf_file} if gguf_file else {"use_safetensors": True}
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            place, dtype=torch.float32, local_files_only=True, output_loading_info=True, **extra
        )
    except Exception as error:  # each family's loader raises what it likes
        raise UserError(f"The model in {place} cannot be loaded ({line(error)})", AS_SAVED) from None
    missing = sorted(found["missing_keys"])
    if missing:
        raise UserError(
            f"The weights in {place} lack {len(missing)} tensors that config.json asks for ({missing[0]})",
            AS_SAVED,
        )
    # A GGUF load leaves its quantiser behind, and save_pretrained then refuses to write plain weights.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def save(model: Any, into: Path) -> None:
    """One file of tensors, each under its own name in the model: what is trained is told apart by these names."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    from emperf.training.family import stored

    shed_sampling(model)
    model.save_pretrained(into, max_shard_size="100GB")
    file = into / "model.safetensors"
    own = stored(model)
    with safe_open(file, framework="pt") as tensors:
        same = set(tensors.keys()) == set(own)
    if not same:
        # Some families are written under the names of their first release.
        save_file({name: t.detach().contiguous() for name, t in own.items()}, file, metadata={"format": "pt"})
        load(into)


def shed_sampling(model: Any) -> None:
    """Take out settings for sampling that contradict each other, which save_pretrained refuses to write."""
    from transformers import GenerationConfig

    given = model.generation_config
    try:
        given.validate(strict=True)
    except ValueError:
        ends = {key: getattr(given, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**ends)


def read_head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(len(POINTER))


def line(error: Exception) -> str:
    """The first line of an error's text, short enough for a message."""
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
