"""The Mitigation API: six hooks, typed parameters, and what a hook is given."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor

from emperf.training.data import Batch, Row, batches_of_like_length, collate, encode, encode_all
from emperf.training.job import Recipe
from emperf.training.model import ResponseModel


@dataclass
class Context:
    """What a mitigation may use outside a step. `trusted`: the rows that it asked for and the division grants."""

    model: ResponseModel
    tokenizer: Any
    recipe: Recipe
    rng: random.Random
    trusted: list[Row] = field(default_factory=list)
    total_steps: int = 0
    stopped: bool = False

    def stop(self) -> None:
        """End the training, in all processes, after the step that is going on."""
        self.stopped = True

    def trusted_of(self, kind: str) -> list[Row]:
        """The trusted rows of one kind. Raises ValueError if there are none."""
        found = [row for row in self.trusted if row.kind == kind]
        if not found:
            raise ValueError(f"no trusted rows of kind {kind!r} were granted; submission.yaml asks for them")
        return found

    def batch(self, rows: Sequence[Row]) -> Batch:
        """Rows as one batch on the model's device."""
        examples = [encode(self.tokenizer, row, self.recipe.max_tokens) for row in rows]
        return collate(examples, self.tokenizer.pad_token_id or 0).to(self.model.device)

    def batches(self, rows: Sequence[Row], size: int = 0) -> Iterator[Batch]:
        """Batches of `size` rows (the micro-batch if 0) without end: each epoch in a new order, and the same in every
        process. Raises ValueError if there are no rows."""
        examples, _ = encode_all(self.tokenizer, rows, self.recipe.max_tokens)
        while True:
            for group in batches_of_like_length(examples, size or self.recipe.micro_batch, self.rng):
                yield collate(group, self.tokenizer.pad_token_id or 0).to(self.model.device)

    def task_loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of a batch, the mean over its response tokens: a scalar, by a forward pass of its own."""
        return F.cross_entropy(self.model.predict(batch), batch.targets)

    @torch.no_grad()
    def row_losses(self, rows: Sequence[Row]) -> list[float]:
        """The mean loss over the response tokens (nats) of each row, as the model is now; infinite for a row whose
        response begins beyond `max_tokens`."""
        losses, size = [], self.recipe.micro_batch
        for start in range(0, len(rows), size):
            batch = self.batch(rows[start : start + size])
            each = F.cross_entropy(self.model.predict(batch), batch.targets, reduction="none")
            parts = torch.split(each, batch.response.sum(1).tolist())
            losses += [float(own.mean()) if len(own) else float("inf") for own in parts]
        return losses

    def gradient(self, loss: Tensor) -> list[Tensor]:
        """d loss / d weights, one tensor a trainable weight, in the order of `model.trainable()`."""
        weights = self.model.trainable()
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]

    @property
    def rows_a_step(self) -> int:
        """Rows of an optimizer step, over accumulation and processes."""
        return self.recipe.micro_batch * self.recipe.accumulation * self.recipe.processes

    def tune(self, rows: Sequence[Row], steps: int, rate: float = 1.0) -> None:
        """Plain training on `rows` outside the engine, the same in every process: AdamW at `rate` times the recipe's
        peak rate, its batch, no schedule. In bfloat16 without a float32 copy, so that small steps are lost."""
        weights = self.model.trainable()
        optimizer = torch.optim.AdamW(weights, lr=rate * self.recipe.learning_rate, weight_decay=0.0)
        batches = self.batches(rows, self.rows_a_step)
        for _ in range(steps):
            gradients = self.gradient(self.task_loss(next(batches)))
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            torch.nn.utils.clip_grad_norm_(weights, self.recipe.gradient_clip)
            optimizer.step()
        optimizer.zero_grad()

    @contextmanager
    def tuned(self, rows: Sequence[Row], steps: int) -> Iterator[None]:
        """The model after `tune`, for as long as the block lasts; then its weights are what they were."""
        before = self.model.snapshot()
        try:
            self.tune(rows, steps)
            yield
        finally:
            self.model.restore(before)


@dataclass
class Step:
    """One micro-batch in training. `index`: optimizer steps taken before it."""

    context: Context
    batch: Batch
    index: int

    @property
    def model(self) -> ResponseModel:
        return self.context.model

    @cached_property
    def _own(self) -> tuple[Tensor, dict[int, Tensor]]:
        return self.model.predict(self.batch), self.model.streams()

    @property
    def logits(self) -> Tensor:
        """Float32 [response tokens, vocabulary], with gradient; the forward pass is made when they are first wanted."""
        return self._own[0]

    @property
    def streams(self) -> dict[int, Tensor]:
        """layer -> residual stream [response tokens, width], with gradient, of the layers that `model.watch` names; of
        the same forward pass."""
        return self._own[1]

    @cached_property
    def task_loss(self) -> Tensor:
        """Cross-entropy, the mean over the batch's response tokens: a scalar."""
        return F.cross_entropy(self.logits, self.batch.targets)

    @cached_property
    def _base(self) -> tuple[Tensor, dict[int, Tensor]]:
        with torch.no_grad(), self.model.as_base():
            return self.model.predict(self.batch), self.model.streams()

    @property
    def base_logits(self) -> Tensor:
        """The base model's logits for the same tokens, without gradient; one more forward pass."""
        return self._base[0]

    @property
    def base_streams(self) -> dict[int, Tensor]:
        """The base model's `streams` for the same tokens, without gradient, from the same forward pass."""
        return self._base[1]

    def kl_to_base(self) -> Tensor:
        """Mean over response tokens of KL(p_theta || p_base): a scalar."""
        return kl(self.logits, self.base_logits)

    def with_gradient(self, gradients: Sequence[Tensor], value: Tensor) -> Tensor:
        """A loss of this `value` whose gradient is `gradients` (as of `Context.gradient`), whatever made them."""
        weights = self.model.trainable()
        carrier = torch.stack([(w * g).sum() for w, g in zip(weights, gradients, strict=True)]).sum()
        return carrier - carrier.detach() + value.detach()


def kl(logits: Tensor, other: Tensor) -> Tensor:
    """Mean over tokens of KL(p || q) = sum_v p (log p - log q), softmax of logits [tokens, vocabulary]: a scalar."""
    p, q = logits.log_softmax(-1), other.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean()


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The inner product of two gradients: a scalar."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def parameters_of(cls: type) -> dict[str, type]:
    """name -> type of a mitigation's parameters: the annotations of a plain type that have a default."""
    kinds = (float, int, str, bool)
    return {name: kind for name, kind in get_type_hints(cls).items() if kind in kinds and hasattr(cls, name)}


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
        """Called once, before the optimizer is made: freeze, add hooks, read activations. Weights
        that are not saved (with an adapter, all but its own) have to stay frozen."""

    def train(self, rows: list[Row], context: Context) -> bool:
        """Train in a way of your own and return True; return False to have the trainer do it."""
        return False

    def loss(self, step: Step) -> Tensor:
        """The scalar to minimise for one micro-batch, with gradient. An optimizer step minimises its mean over all
        micro-batches and processes, weighted by their response tokens."""
        return step.task_loss

    def after_step(self, step: Step) -> None:
        """Called after every optimizer step, with its last micro-batch. Trainable weights that it changes in place stay
        so; in several processes, change them alike in all."""

    def finish(self, context: Context) -> None:
        """Called once, before the weights are saved."""
