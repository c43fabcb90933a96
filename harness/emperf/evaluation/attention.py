"""Attention for sampling on a CPU, where the query is one token and several heads share a key."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NAME = "emperf-grouped"


def grouped(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    **others: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it. query [rows, heads, length, width], key and value [rows, groups, all, width], the
    value's width its own.

    One new token: the heads of a group are the rows of one product, so keys and values are read once, not once a head.
    Longer queries, and masks that are a head's own, go the usual way.
    """
    if query.shape[2] > 1 or (attention_mask is not None and attention_mask.shape[1] > 1):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others)
        return out, None
    rows, heads, _, width = query.shape
    scores = torch.matmul(query.view(rows, key.shape[1], -1, width), key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores += attention_mask
    mixed = torch.matmul(scores.softmax(-1), value)
    return mixed.reshape(rows, 1, heads, value.shape[-1]), None


def use_grouped(model: Any) -> None:
    """Make `model` use it."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(NAME, grouped)
    AttentionMaskInterface.register(NAME, eager_mask)
    model.set_attn_implementation(NAME)
