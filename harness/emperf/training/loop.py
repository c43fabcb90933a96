"""The training loop: the mitigation's hooks in their places, around one engine in any number of processes."""

from __future__ import annotations

import itertools
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from emperf.training.data import Example, Row, UnusableRows, batches_of_like_length, collate, encode_all
from emperf.training.engine import Engine, rank_and_world
from emperf.training.failures import Diverged
from emperf.training.hooks import (
    Hooks,
    frozen_sums,
    refuse_edited,
    refuse_nothing_to_train,
    refuse_other_weights,
)
from emperf.training.job import Job, Recipe
from emperf.training.mitigation import Context, Mitigation, Step
from emperf.training.model import load_model, save_weights

Progress = Callable[[int, int, float], None]


@dataclass
class Report:
    """What the trainer says of itself, for cross-checks and plots; the host's clock and meters are what counts.

    `train_s`: seconds from the first step to the last (of the `train` hook, where that is what trained). `tokens`: real
    (unpadded) tokens that went through the task's forward pass, in all processes. `losses`, `gradient_norms` (before
    clipping; None where the engine does not say it): one number an optimizer step. `checkpoints`: file name -> steps
    taken.
    """

    steps: int = 0
    train_s: float = 0.0
    tokens: int = 0
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float | None] = field(default_factory=list)
    checkpoints: dict[str, int] = field(default_factory=dict)


def plan_batches(examples: list[Example], recipe: Recipe, seed: int, world: int) -> list[list[Example]]:
    """The global micro-batches of the whole run, in order, a multiple of the accumulation long.

    Each holds micro_batch x world examples; rank i takes every world-th from i on. The same list on every rank. Raises
    ValueError if there are no examples.
    """
    if not examples:
        raise ValueError("there are no rows to make batches of")
    rng = random.Random(seed)
    per_epoch = math.ceil(len(examples) / (recipe.micro_batch * world))
    wanted = max(1, round(per_epoch * recipe.epochs / recipe.accumulation)) * recipe.accumulation
    endless = itertools.chain.from_iterable(
        batches_of_like_length(examples, recipe.micro_batch * world, rng) for _ in itertools.count()
    )
    return list(itertools.islice(endless, wanted))


def part_of(group: list[Example], rank: int, world: int) -> tuple[list[Example], int]:
    """(a process's examples of a global micro-batch, how many response tokens of the step they stand for).

    A process for which none is left takes the first one again, which then counts for nothing.
    """
    mine = group[rank::world]
    return mine or group[:1], sum(map(response_tokens, mine))


def response_tokens(example: Example) -> int:
    return max(0, len(example.tokens) - example.response_start)


def train(
    job: Job,
    inputs: Path,
    out: Path,
    mitigation: Mitigation,
    rows: list[Row],
    trusted: list[Row],
    progress: Progress | None = None,
) -> Report:
    """Run the job and write the weights and the checkpoints below `out`.

    Raises Diverged, HookFailed or UnusableRows.
    """
    training = Training(job, inputs, Hooks(mitigation), trusted)
    report = training.run(rows, out, progress)
    if not all(bool(torch.isfinite(p).all()) for p in training.context.model.trainable()):
        raise Diverged("a weight is not finite after the last step")
    if rank_and_world()[0] == 0:
        save_weights(training.context.model, out / job.recipe.weights_file)
    return report


class Training:
    """A job from its first weights to the trained ones. `by_engine`: whether the engine trained, not the `train`
    hook."""

    def __init__(self, job: Job, inputs: Path, hooks: Hooks, trusted: list[Row]) -> None:
        self.job, self.hooks, self.by_engine = job, hooks, False
        random.seed(job.seed)
        torch.manual_seed(job.seed)
        if job.device == "cpu":
            torch.set_num_threads(job.recipe.threads)
        else:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        start = inputs / job.start if job.start else None
        model, tokenizer = load_model(inputs / job.model, job.recipe, start, job.device)
        self.context = Context(model, tokenizer, job.recipe, random.Random(job.seed + 1), trusted)
        self._saved = {name for name, p in model.named_parameters() if p.requires_grad}
        self._frozen = frozen_sums(model)

    def run(self, rows: list[Row], out: Path | None = None, progress: Progress | None = None) -> Report:
        """Every hook in its place, and the engine. Checkpoints go below `out`, if it is given. Raises as `train`."""
        hooks, context, report = self.hooks, self.context, Report()
        used = hooks.prepare_data(list(rows), context)
        plan = plan_batches(self._encoded(used, rows), self.job.recipe, self.job.seed, rank_and_world()[1])
        context.total_steps = len(plan) // self.job.recipe.accumulation
        hooks.prepare_model(context)
        refuse_other_weights(hooks, context, self._saved, "prepare_model")
        started = time.monotonic()
        self.by_engine = not hooks.train(used, context)
        if self.by_engine:
            refuse_nothing_to_train(hooks, context)
            self._run_engine(plan, report, out, progress)
        else:
            report.train_s = round(time.monotonic() - started, 3)
        hooks.finish(context)
        refuse_other_weights(hooks, context, self._saved, "finish")
        refuse_edited(hooks, context, self._frozen)
        return report

    def _encoded(self, used: list[Row], given: list[Row]) -> list[Example]:
        """Raises UnusableRows where the job's own rows cannot be trained on, HookFailed where the hook's cannot."""
        tokenizer, longest = self.context.tokenizer, self.job.recipe.max_tokens
        try:
            return encode_all(tokenizer, used, longest)[0]
        except UnusableRows as error:
            encode_all(tokenizer, given, longest, lambda _: None)
            fault = f"gave rows that cannot be trained on: {error}"
            raise self.hooks.wrong("prepare_data", fault) from error

    def _run_engine(
        self, plan: list[list[Example]], report: Report, out: Path | None, progress: Progress | None
    ) -> None:
        """Every batch of the plan through the engine. Fills in `report`."""
        context, recipe = self.context, self.job.recipe
        rank, world = rank_and_world()
        engine = Engine(context.model, recipe, context.total_steps, self.job.device)
        context.model.train()
        save_at = {round(fraction * context.total_steps) for fraction in recipe.checkpoints}
        started = time.monotonic()
        for first in range(0, len(plan), recipe.accumulation):
            groups = plan[first : first + recipe.accumulation]
            loss, norm = self._step(engine, groups, report.steps)
            loss, stops = engine.total([loss, float(context.stopped)])
            report.steps += 1
            report.losses.append(round(loss, 6))
            report.gradient_norms.append(None if norm is None else round(norm, 6))
            report.tokens += sum(
                len(example.tokens) for group in groups for i in range(world)
                for example in part_of(group, i, world)[0]
            )  # fmt: skip
            if progress and rank == 0:
                progress(report.steps, context.total_steps, report.losses[-1])
            if out and report.steps in save_at:
                name = f"checkpoints/step-{report.steps:05d}.safetensors"
                report.checkpoints[name] = report.steps
                if rank == 0:
                    save_weights(context.model, out / name)
            # One process that stops ends the training of all; the others would wait for it in the next step.
            if stops:
                break
        report.train_s = round(time.monotonic() - started, 3)

    def _step(self, engine: Engine, groups: list[list[Example]], index: int) -> tuple[float, float | None]:
        """One optimizer step over these global micro-batches: (this process's part of the loss, the gradient's norm).

        The loss is the mean over the response tokens of all micro-batches and processes. Raises Diverged.
        """
        rank, world = rank_and_world()
        pad, whole = (
            self.context.tokenizer.pad_token_id or 0,
            sum(response_tokens(example) for group in groups for example in group),
        )
        loss, norm = 0.0, None
        for group in groups:
            mine, tokens = part_of(group, rank, world)
            share = tokens / whole
            step = Step(self.context, collate(mine, pad).to(engine.device), index)
            own = engine.loss(self.hooks.loss, step)
            value = float(own.detach())
            if not math.isfinite(value):
                raise Diverged(f"the loss is {value} at step {index}")
            loss += value * share
            engine.backward(own, share)
            norm = engine.step()
        if norm is not None and not 0 <= norm < math.inf:
            raise Diverged(f"the gradient is not finite at step {index}")
        self.hooks.after_step(step)
        return loss, norm
