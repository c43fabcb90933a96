"""The DeepSpeed engine: optimizer steps in any number of processes, from the weights as the hooks left them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from emperf.training.job import Recipe
from emperf.training.mitigation import Step
from emperf.training.model import ResponseModel


def rank_and_world() -> tuple[int, int]:
    """(this process's number, how many there are)."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def rate(step: int, warmup: int, steps: int) -> float:
    """The learning rate of a step (from 0), as a share of the peak rate.

    It rises in equal parts over the first `warmup` steps, begins above zero so that no step is lost, and falls in
    equal parts to 0 after the last of `steps`.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (steps - step) / max(1, steps - warmup))


class Whole(torch.nn.Module):
    """What the engine sees: a module whose output is the loss. The engine reduces gradients when a backward pass goes
    through its module's output, and a mitigation may take gradients of its own through the logits."""

    def __init__(self, model: ResponseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[Step], Tensor], step: Step) -> Tensor:
        return loss(step)


class Engine:
    """A DeepSpeed engine over the trainable weights of a model. One process or several; gloo on CPU, NCCL on GPU."""

    def __init__(self, model: ResponseModel, recipe: Recipe, steps: int, device: str) -> None:
        self._engine = start(model, recipe, steps, device)
        self.device: torch.device = self._engine.device
        self._micro_batches = recipe.accumulation * rank_and_world()[1]

    def loss(self, hook: Callable[[Step], Tensor], step: Step) -> Tensor:
        loss: Tensor = self._engine(hook, step)
        return loss

    def backward(self, loss: Tensor, share: float) -> None:
        """Add `share` of the loss's gradient to the step's; the shares of all micro-batches and processes add up
        to 1."""
        # DeepSpeed takes the mean over the micro-batches and over the processes.
        self._engine.backward(loss if self._micro_batches == 1 else loss * (share * self._micro_batches))

    def step(self) -> float | None:
        """End a micro-batch, after the last of a step with an optimizer step; the gradient's norm before clipping, None
        where DeepSpeed does not say it. It is not finite, or negative, for a gradient that is not finite."""
        if self._engine.is_gradient_accumulation_boundary():
            self._take_edits()
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def total(self, values: list[float]) -> list[float]:
        """Each value's sum over all processes."""
        if rank_and_world()[1] == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor]

    @torch.no_grad()
    def _take_edits(self) -> None:
        """Bring weights that a hook has changed to the copy that DeepSpeed steps from.

        That copy is float32 and, since the last step, rounds to the weights. Where it no longer does, a hook was there;
        anywhere else it is left alone, for a bfloat16 weight holds less than its copy.
        """
        for weights, master in self._copies():
            edited = weights != master.to(weights.dtype)
            if bool(edited.any()):
                master.copy_(torch.where(edited, weights.to(master.dtype), master))

    def _copies(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(weights, the copy of them that is stepped from), as far as this process steps them."""
        optimizer = self._engine.optimizer
        if hasattr(optimizer, "single_partition_of_fp32_groups"):
            for group, master in enumerate(optimizer.single_partition_of_fp32_groups):
                gather(optimizer, group)
                rank = torch.distributed.get_rank(optimizer.real_dp_process_group[group])
                yield optimizer.parallel_partitioned_bit16_groups[group][rank], master.data
        elif hasattr(optimizer, "fp32_groups"):
            for weights, masters in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
                yield from ((w.data, m.data) for w, m in zip(weights, masters, strict=True))
        # Without such a copy the optimizer steps the weights themselves.


def gather(optimizer: Any, group: int) -> None:
    """Bring the weights of a group that a hook moved elsewhere (`weight.data = ...`) back to ZeRO's flat buffer."""
    flat = optimizer.bit16_groups_flat[group]
    views = zip(
        optimizer.round_robin_bit16_groups[group], optimizer.round_robin_bit16_offsets[group], strict=True
    )
    for weight, offset in views:
        own = flat.narrow(0, offset, weight.numel()).view(weight.shape)
        if weight.data_ptr() != own.data_ptr():
            own.copy_(weight)
            weight.data = own


def start(model: ResponseModel, recipe: Recipe, steps: int, device: str) -> Any:
    """DeepSpeed's own engine, with the recipe's optimizer and learning rate."""
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
    parameters, exact = model.trainable(), recipe.dtype == "float64"
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: rate(at, recipe.warmup_steps, steps))
    config = {
        "train_micro_batch_size_per_gpu": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.accumulation,
        "gradient_clipping": recipe.gradient_clip,
        # ZeRO's copy of the weights is float32, whatever they are.
        "zero_optimization": {"stage": 0 if exact else recipe.zero_stage},
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
    # DeepSpeed adds up no float64 over processes; there is one alone (`Recipe`).
    engine.enable_backward_allreduce = not exact
    if device == "cpu":
        torch.set_num_threads(recipe.threads)
    return engine
