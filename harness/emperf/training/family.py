"""Where families of causal language models differ: their head, their layers, how rows may go through them."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

# What a mask and positions alone decide. Other kinds of layers carry a state from token to token.
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
# A window shorter than this is shorter than many a question with its answer.
LEAST_WINDOW = 256


def logits_of(model: Any, states: Tensor) -> Tensor:
    """Hidden states [..., width] through the model's head, as its family scales and caps: [..., vocabulary]."""
    logits: Tensor = model.get_output_embeddings()(states)
    config = model.get_decoder().config
    # Cohere's model has it; other configurations name one that nothing reads.
    scale = getattr(model, "logit_scale", None)
    if scale is not None:
        logits = logits * scale
    divisor = getattr(config, "logits_scaling", None)
    if divisor is not None:
        logits = logits / divisor
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else (logits / cap).tanh() * cap


def layers_of(model: Any) -> list[nn.Module]:
    """The transformer layers, first to last, whatever their list is called. Raises ValueError where there is none."""
    decoder = model.get_decoder()
    wanted = getattr(decoder.config, "num_hidden_layers", None)
    for found in decoder.modules():
        if isinstance(found, nn.ModuleList) and len(found) == wanted:
            return list(found)
    raise ValueError(f"{type(model).__name__} has no list of transformer layers")


def packs(model: Any) -> bool:
    """Whether several rows may go through the decoder as one sequence, told apart by mask and positions alone.

    Not where the place in the sequence counts beside the position (ALiBi, windows that the layers themselves keep,
    states that go from token to token), nor where a window is too short for a row.
    """
    decoder = model.get_decoder()
    config = decoder.config
    window = getattr(config, "sliding_window", None)
    return (
        "position_ids" in inspect.signature(decoder.forward).parameters
        and not getattr(config, "alibi", False)
        and getattr(config, "window_size", None) is None
        and set(getattr(config, "layer_types", None) or ()) <= ATTENTION
        and (not window or window >= LEAST_WINDOW)
    )


def has_plain_attention(model: Any) -> bool:
    """Whether the model's attention is the softmax of products and nothing else, so that any kernel of it will do.

    transformers takes its own kernel for that, and the family's code where scores are capped, biased or have sinks.
    """
    return bool(model.get_decoder().config._attn_implementation == "sdpa") and packs(model)


def select_rows(cache: Any, rows: Tensor) -> None:
    """Keep these rows of a cache, in this order, in place; `rows`: int64, each as often as it comes."""
    if all(hasattr(layer, "batch_select_indices") for layer in cache.layers):
        cache.batch_select_indices(rows)
    else:
        cache.reorder_cache(rows)


def is_transposed(layer: nn.Module) -> bool:
    """Whether a linear layer keeps its weight as [in, out]: GPT-2's."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(layer, Conv1D)


def stored(model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor of what a file of the model holds: each parameter once, and the buffers that are saved."""
    own: dict[str, Tensor] = dict(model.named_parameters())
    shared = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return own | {name: t for name, t in model.state_dict(keep_vars=True).items() if name not in shared}
