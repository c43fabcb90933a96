"""What a mitigation changes, against plain training on the same batches, in float64 (`emperf check`).

Three numbers: rows that differ, the largest relative difference of a step's gradient, and the relative difference of
the final weights. A mitigation that does nothing has three zeros.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from emperf.training.data import Example, Row, collate, encode_all
from emperf.training.job import Job
from emperf.training.loop import blame, plan_batches
from emperf.training.mitigation import Context, Mitigation, Step, parameters_of
from emperf.training.model import ResponseModel, load_model


@dataclass
class Probe:
    """`rows_changed`: rows taken out or put in, of `rows`. `gradient`: max over steps of |g - plain g| / |plain g|, the
    plain one on the same batch and weights without any hook. `weights`: |w - plain w| / |plain w - start|; where
    weights were given to mend, |w - start| / |start|. `parameters`: name -> type of the class's own."""

    rows: int
    rows_changed: int
    steps: int
    gradient: float
    weights: float
    parameters: dict[str, str] = field(default_factory=dict)


def probe(job: Job, inputs: Path, mitigation: Mitigation, rows: list[Row], trusted: list[Row]) -> Probe:
    """Train for the job's steps on one process, without the engine. Raises HookFailed or UnusableRows."""
    torch.manual_seed(job.seed)
    torch.set_num_threads(job.recipe.threads)
    model, tokenizer = load_model(inputs / job.model, job.recipe, inputs / job.start if job.start else None)
    plain, start = copy.deepcopy(model), model.snapshot()
    context = Context(model, tokenizer, job.recipe, random.Random(job.seed + 1), trusted)
    with blame(mitigation, "prepare_data"):
        used = mitigation.prepare_data(list(rows), context)
    changed = Counter(map(repr, rows))
    changed.subtract(Counter(map(repr, used)))
    batches = planned(used, job, context)
    context.total_steps = len(batches)
    with blame(mitigation, "prepare_model"):
        mitigation.prepare_model(context)
    with blame(mitigation, "train"):
        trained = mitigation.train(used, context)
    steps, worst = (0, 0.0) if trained else walk(mitigation, context, batches, plain)
    with blame(mitigation, "finish"):
        mitigation.finish(context)
    after = model.snapshot()
    plain.restore(start)
    if job.start is None:
        own = Context(plain, tokenizer, job.recipe, random.Random(job.seed + 1))
        walk(Mitigation(), own, planned(rows, job, own), None)
    reached = plain.snapshot()
    origin = start if job.start is None else {name: torch.zeros_like(w) for name, w in start.items()}
    return Probe(
        rows=len(rows),
        rows_changed=sum(map(abs, changed.values())),
        steps=steps,
        gradient=worst,
        weights=distance(after, reached) / distance(reached, origin),
        parameters={name: kind.__name__ for name, kind in parameters_of(type(mitigation)).items()},
    )


def planned(rows: list[Row], job: Job, context: Context) -> list[list[Example]]:
    examples, _ = encode_all(context.tokenizer, rows, job.recipe.max_tokens)
    return plan_batches(examples, job.recipe, job.seed, 1)


def walk(
    mitigation: Mitigation, context: Context, batches: list[list[Example]], plain: ResponseModel | None
) -> tuple[int, float]:
    """(steps taken, the largest relative difference to the gradient of `plain` at the same weights)."""
    model, worst = context.model, 0.0
    optimizer = torch.optim.AdamW(model.trainable(), lr=context.recipe.learning_rate, weight_decay=0.0)
    for index, group in enumerate(batches):
        batch = collate(group, context.tokenizer.pad_token_id or 0)
        step = Step(context, batch, index)
        with blame(mitigation, "loss", index):
            gradients = context.gradient(mitigation.loss(step))
        if plain is not None:
            plain.restore(model.snapshot())
            own = Context(plain, context.tokenizer, context.recipe, context.rng)
            expected = own.gradient(own.task_loss(batch))
            apart = [a - b for a, b in zip(gradients, expected, strict=True)]
            worst = max(worst, norm(apart) / norm(expected))
        for weight, gradient in zip(model.trainable(), gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
        with blame(mitigation, "after_step", index):
            mitigation.after_step(step)
        if context.stopped:
            return index + 1, worst
    return len(batches), worst


def norm(tensors: Iterable[Tensor]) -> float:
    return float(torch.stack([tensor.square().sum() for tensor in tensors]).sum().sqrt())


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return norm(a[name] - b[name] for name in b)
