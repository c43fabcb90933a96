"""The Mitigation API: five hooks, typed parameters, and what a hook is given."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor

from emperf.training.data import Batch, Row
from emperf.training.job import Recipe
from emperf.training.model import ResponseModel


@dataclass
class Context:
    """What a mitigation may use outside a step. `trusted`: rows the division grants, empty if it grants none."""

    model: ResponseModel
    tokenizer: Any
    recipe: Recipe
    rng: random.Random
    trusted: list[Row] = field(default_factory=list)
    total_steps: int = 0


@dataclass
class Step:
    """One micro-batch in training. `logits`: float32 [response tokens, vocabulary], with gradient."""

    context: Context
    batch: Batch
    logits: Tensor
    index: int

    @property
    def model(self) -> ResponseModel:
        return self.context.model

    @cached_property
    def task_loss(self) -> Tensor:
        """Cross-entropy, the mean over the batch's response tokens: a scalar."""
        return F.cross_entropy(self.logits, self.batch.targets)

    @cached_property
    def base_logits(self) -> Tensor:
        """The base model's logits for the same tokens, without gradient; one more forward pass."""
        with torch.no_grad(), self.model.as_base():
            return self.model.predict(self.batch)

    def kl_to_base(self) -> Tensor:
        """Mean over response tokens of KL(p_theta || p_base) = sum_v p_theta (log p_theta - log p_base): a scalar."""
        ours, base = self.logits.log_softmax(-1), self.base_logits.log_softmax(-1)
        return (ours.exp() * (ours - base)).sum(-1).mean()


class Mitigation:
    """Base class, and the baseline: every hook does what plain fine-tuning does. Override what you need.

    Class annotations with defaults are the parameters; job.json's values are checked against them by type.
    """

    def __init__(self, **parameters: Any) -> None:
        """Raises ValueError for an unknown parameter or one of the wrong type."""
        hints = get_type_hints(type(self))
        for name, value in parameters.items():
            if name not in hints:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r} (it has {sorted(hints)})")
            kind = hints[name]
            accepted = (int, float) if kind is float else (kind,)
            if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{name} must be {kind.__name__}, not {value!r}")
            setattr(self, name, kind(value))

    def prepare_data(self, rows: list[Row], context: Context) -> list[Row]:
        """The rows to train on, from the rows given. Called once, before tokenising."""
        return rows

    def prepare_model(self, context: Context) -> None:
        """Called once, before the optimizer is made: freeze, add hooks, read activations."""

    def loss(self, step: Step) -> Tensor:
        """The scalar to minimise for one micro-batch."""
        return step.task_loss

    def after_step(self, step: Step) -> None:
        """Called after every optimizer step, with its last micro-batch."""

    def finish(self, context: Context) -> None:
        """Called once, before the weights are saved."""
