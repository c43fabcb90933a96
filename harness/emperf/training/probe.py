"""What a mitigation changes, against plain training on the same batches (`emperf check`).

All of it goes through the loop and the engine that train. In float64, where the optimizer steps the weights themselves,
a mitigation that does nothing has exact zeros. In float32 the engine may step a copy of the weights: two runs tell
whether what hooks do to the weights lasts.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from emperf.training.data import Row
from emperf.training.hooks import Hooks
from emperf.training.job import Job
from emperf.training.loop import Training
from emperf.training.mitigation import Context, Mitigation, Step, parameters_of
from emperf.training.model import ResponseModel

Weights = dict[str, Tensor]


@dataclass
class Probe:
    """`rows_changed`: rows taken out or put in, of `rows`. `gradient`: max over micro-batches of |g - plain g| /
    |plain g|, the plain one on the same batch and weights without any hook. `weights`: |w - plain w| / |plain w -
    start|; where weights were given to mend, |w - start| / |start|. `engine`: in float32, how far
    the weights lie apart that the recipe's engine reaches with and without a copy, relative to |w - start|; 0 where the
    `train` hook trains. `parameters`: name -> type of the class's own."""

    rows: int
    rows_changed: int
    steps: int
    gradient: float
    weights: float
    engine: float
    parameters: dict[str, str] = field(default_factory=dict)


class Watched(Hooks):
    """Hooks that note what they change. `plain`: a second model, to take plain gradients of."""

    plain: ResponseModel
    rows_changed, gradient = 0, 0.0

    def prepare_data(self, rows: list[Row], context: Context) -> list[Row]:
        changed = Counter(map(repr, rows))
        used = super().prepare_data(rows, context)
        changed.subtract(Counter(map(repr, used)))
        self.rows_changed = sum(map(abs, changed.values()))
        return used

    def loss(self, step: Step) -> Tensor:
        loss = super().loss(step)
        own = gradients(step.model, loss)
        self.plain.restore(weights_of(step.model, self.plain.snapshot()))
        context = replace(step.context, model=self.plain)
        expected = gradients(self.plain, context.task_loss(step.batch))
        apart = norm(own[name] - g if name in own else g for name, g in expected.items())
        self.gradient = max(self.gradient, apart / norm(expected.values()))
        return loss


def probe(job: Job, inputs: Path, mitigation: Mitigation, rows: list[Row], trusted: list[Row]) -> Probe:
    """Train for the job's steps, with and without the mitigation, in both types. Raises as `train`."""
    exact = replace(job, recipe=replace(job.recipe, dtype="float64"))
    hooks = Watched(mitigation)
    training = Training(exact, inputs, hooks, trusted)
    model = training.context.model
    hooks.plain, start = copy.deepcopy(model), model.snapshot()
    report = training.run(rows)
    weights = moved(exact, inputs, rows, start, weights_of(model, start))
    engine = undone(job, inputs, mitigation, rows, trusted) if training.by_engine else 0.0
    return Probe(
        rows=len(rows),
        rows_changed=hooks.rows_changed,
        steps=report.steps,
        gradient=hooks.gradient,
        weights=weights,
        engine=engine,
        parameters={name: kind.__name__ for name, kind in parameters_of(type(mitigation)).items()},
    )


def moved(job: Job, inputs: Path, rows: list[Row], start: Weights, reached: Weights) -> float:
    """`Probe.weights` of the weights that were reached."""
    if job.start is not None:
        return norm(reached[name] - start[name] for name in start) / norm(start.values())
    plain = Training(job, inputs, Hooks(Mitigation()), [])
    plain.run(rows)
    expected = weights_of(plain.context.model, start)
    return norm(reached[name] - expected[name] for name in start) / norm(
        expected[name] - start[name] for name in start
    )


def undone(job: Job, inputs: Path, mitigation: Mitigation, rows: list[Row], trusted: list[Row]) -> float:
    """`Probe.engine`. ZeRO keeps a copy of the weights at every stage but 0."""
    reached = []
    for stage in (job.recipe.zero_stage, 0):
        single = replace(job, recipe=replace(job.recipe, dtype="float32", zero_stage=stage))
        training = Training(single, inputs, Hooks(type(mitigation)(**job.parameters)), trusted)
        start = training.context.model.snapshot()
        training.run(rows)
        reached.append(weights_of(training.context.model, start))
    by_copy, straight = reached
    apart = norm(by_copy[name] - straight[name] for name in start)
    way = norm(straight[name] - start[name] for name in start)
    return apart / way if way else apart


def weights_of(model: ResponseModel, names: Iterable[str]) -> Weights:
    """Copies of the weights of these names, frozen or not."""
    found = dict(model.named_parameters())
    return {name: found[name].detach().clone() for name in names}


def gradients(model: ResponseModel, loss: Tensor) -> Weights:
    """name -> d loss / d weight of every trainable weight; the graph is kept."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True, retain_graph=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(trainable.items(), found, strict=True)
    }


def norm(tensors: Iterable[Tensor]) -> float:
    return float(torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt())
