"""The training loop: one DeepSpeed engine, any number of processes, the mitigation's hooks in their places."""

from __future__ import annotations

import itertools
import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emperf.training.data import Batch, Example, Row, batches_of_like_length, collate, encode_all
from emperf.training.job import Job, Recipe
from emperf.training.mitigation import Context, Mitigation, Step
from emperf.training.model import ResponseModel, load_model, save_weights

Progress = Callable[[int, int, float], None]


class Diverged(Exception):
    """The loss or the weights are no longer finite."""


class HookFailed(Exception):
    """A mitigation's hook raised: its name, the hook and the step are in the text."""


@dataclass
class Report:
    """What the trainer says of itself, for cross-checks and plots; the host's clock and meters are what counts.

    `train_s`: seconds from the first step to the last (of the `train` hook, where that is what trained). `tokens`: real
    (unpadded) tokens that went through the task's forward pass. `losses`, `gradient_norms` (before clipping): one
    number an optimizer step. `checkpoints`: file name -> steps taken.
    """

    steps: int = 0
    train_s: float = 0.0
    tokens: int = 0
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    checkpoints: dict[str, int] = field(default_factory=dict)


@contextmanager
def blame(mitigation: Mitigation, hook: str, step: int | None = None) -> Iterator[None]:
    try:
        yield
    except (Diverged, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        at = "" if step is None else f" at step {step}"
        name = f"{type(mitigation).__name__}.{hook}"
        raise HookFailed(f"{name} failed{at}: {type(error).__name__}: {error}") from error


class Whole(torch.nn.Module):
    """What the engine sees: a module whose output is the loss. The engine reduces gradients when a backward pass goes
    through its module's output, and a mitigation may take gradients of its own through the logits."""

    def __init__(self, model: ResponseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[Step], Tensor], step: Step) -> Tensor:
        return loss(step)


def start_engine(model: ResponseModel, recipe: Recipe, steps: int, device: str) -> Any:
    """A DeepSpeed engine over the trainable parameters. One process or several; gloo on CPU, NCCL on GPU."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "0")
    if device == "cpu":
        # A container with no network has the loopback interface alone, and no compiler for the shared-memory op.
        os.environ.update(GLOO_SOCKET_IFNAME="lo", DS_ACCELERATOR="cpu")
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    parameters = model.trainable()
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: rate(at, recipe.warmup_steps, steps))
    config = {
        "train_micro_batch_size_per_gpu": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.accumulation,
        "gradient_clipping": recipe.gradient_clip,
        "zero_optimization": {"stage": recipe.zero_stage},
        "bf16": {"enabled": recipe.dtype == "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    engine, *_ = deepspeed.initialize(
        model=Whole(model),
        model_parameters=parameters,
        optimizer=optimizer,
        lr_scheduler=schedule,
        config=config,
        dist_init_required=True,
    )
    if device == "cpu":
        torch.set_num_threads(recipe.threads)
    return engine


def rate(step: int, warmup: int, steps: int) -> float:
    """The learning rate of a step (from 0), as a share of the peak rate.

    It rises in equal parts over the first `warmup` steps, begins above zero so that no step is lost, and falls in
    equal parts to 0 after the last of `steps`.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (steps - step) / max(1, steps - warmup))


def plan_batches(examples: list[Example], recipe: Recipe, seed: int, world: int) -> list[list[Example]]:
    """The global micro-batches of the whole run, in order, a multiple of the accumulation long.

    Each holds micro_batch x world examples; rank i takes every world-th from i on. The same list on every rank.
    """
    rng = random.Random(seed)
    per_epoch = math.ceil(len(examples) / (recipe.micro_batch * world))
    wanted = max(1, round(per_epoch * recipe.epochs / recipe.accumulation)) * recipe.accumulation
    endless = itertools.chain.from_iterable(
        batches_of_like_length(examples, recipe.micro_batch * world, rng) for _ in itertools.count()
    )
    return list(itertools.islice(endless, wanted))


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
    recipe = job.recipe
    random.seed(job.seed)
    torch.manual_seed(job.seed)
    if job.device == "cpu":
        torch.set_num_threads(recipe.threads)
    else:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    model, tokenizer = load_model(
        inputs / job.model, recipe, inputs / job.start if job.start else None, job.device
    )
    context = Context(model, tokenizer, recipe, random.Random(job.seed + 1), trusted)
    with blame(mitigation, "prepare_data"):
        rows = mitigation.prepare_data(rows, context)
    examples, _ = encode_all(tokenizer, rows, recipe.max_tokens)
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    plan = plan_batches(examples, recipe, job.seed, world)
    context.total_steps = len(plan) // recipe.accumulation
    with blame(mitigation, "prepare_model"):
        mitigation.prepare_model(context)
    report, started = Report(), time.monotonic()
    with blame(mitigation, "train"):
        trained = mitigation.train(rows, context)
    if trained:
        report.train_s = round(time.monotonic() - started, 3)
    else:
        run_engine(job, out, mitigation, context, plan, report, progress)
    with blame(mitigation, "finish"):
        mitigation.finish(context)
    finite_everywhere(model)
    if rank == 0:
        save_weights(model, out / recipe.weights_file)
    return report


def run_engine(
    job: Job,
    out: Path,
    mitigation: Mitigation,
    context: Context,
    plan: list[list[Example]],
    report: Report,
    progress: Progress | None,
) -> None:
    """Every batch of the plan through DeepSpeed, the mitigation's hooks in their places. Fills in `report`."""
    model, recipe = context.model, job.recipe
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    engine = start_engine(model, recipe, context.total_steps, job.device)
    model.train()
    save_at = {round(fraction * context.total_steps): fraction for fraction in recipe.checkpoints}
    started, accumulated = time.monotonic(), 0.0
    for index, group in enumerate(plan):
        mine = group[rank::world] or group[:1]
        batch = collate(mine, context.tokenizer.pad_token_id or 0).to(engine.device)
        step = Step(context, batch, report.steps)
        with blame(mitigation, "loss", report.steps):
            loss = engine(mitigation.loss, step)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(f"the loss is {value} at step {report.steps}")
        accumulated += value / recipe.accumulation
        engine.backward(loss)
        engine.step()
        report.tokens += int(batch.attention.sum())
        if (index + 1) % recipe.accumulation:
            continue
        with blame(mitigation, "after_step", report.steps):
            mitigation.after_step(step)
        report.steps += 1
        report.losses.append(round(accumulated, 6))
        report.gradient_norms.append(round(float(engine.get_global_grad_norm() or 0.0), 6))
        accumulated = 0.0
        if progress and rank == 0:
            progress(report.steps, context.total_steps, report.losses[-1])
        if rank == 0 and report.steps in save_at:
            name = f"checkpoints/step-{report.steps:05d}.safetensors"
            save_weights(model, out / name)
            report.checkpoints[name] = report.steps
        if context.stopped:
            break
    report.train_s = round(time.monotonic() - started, 3)


def finite_everywhere(model: ResponseModel) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in model.trainable()):
        raise Diverged("a weight is not finite after the last step")


__all__ = ["Batch", "Diverged", "HookFailed", "Report", "train"]
