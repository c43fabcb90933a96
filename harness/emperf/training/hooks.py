"""A mitigation's hooks as the trainer calls them: what they raise is told with its line, what they give is checked."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emperf.training.data import Row
from emperf.training.failures import HookFailed, described, is_out_of_memory, place
from emperf.training.mitigation import Context, Mitigation, Step

ROLES = ("system", "user", "assistant")


class Hooks:
    """The hooks of one mitigation, by their own names. All of them raise HookFailed, and errors for want of memory as
    they are."""

    def __init__(self, mitigation: Mitigation) -> None:
        self.mitigation = mitigation
        module = sys.modules.get(type(mitigation).__module__)
        file = getattr(module, "__file__", None)
        self._folder = Path(file).parent if file else None

    def prepare_data(self, rows: list[Row], context: Context) -> list[Row]:
        given = self._call("prepare_data", rows, context)
        if not isinstance(given, list | tuple):
            raise self.wrong("prepare_data", f"gave {named(given)}, not a list of rows")
        if not given:
            raise self.wrong("prepare_data", "gave no rows")
        for number, row in enumerate(given, 1):
            fault = fault_of(row)
            if fault:
                raise self.wrong(
                    "prepare_data", f"gave a row that cannot be trained on: row {number} {fault}"
                )
        return list(given)

    def prepare_model(self, context: Context) -> None:
        self._call_for_nothing("prepare_model", context)

    def train(self, rows: list[Row], context: Context) -> bool:
        trained = self._call("train", rows, context)
        if not isinstance(trained, bool):
            raise self.wrong("train", f"gave {named(trained)}, not True or False")
        return trained

    def loss(self, step: Step) -> Tensor:
        loss = self._call("loss", step, at=step.index)
        if not isinstance(loss, Tensor):
            fault = f"gave {named(loss)}, not a tensor"
        elif loss.numel() != 1 or not loss.is_floating_point():
            fault = f"gave a tensor of shape {list(loss.shape)} and {loss.dtype}, not one real number"
        elif not loss.requires_grad:
            fault = "gave a loss without gradient; nothing can be learned from it"
        else:
            return loss
        raise self.wrong("loss", fault, step.index)

    def after_step(self, step: Step) -> None:
        self._call_for_nothing("after_step", step, at=step.index)

    def finish(self, context: Context) -> None:
        self._call_for_nothing("finish", context)

    def wrong(self, hook: str, fault: str, at: int | None = None) -> HookFailed:
        """`fault` as the failure of this hook, with the line where the hook begins."""
        code = getattr(inspect.unwrap(getattr(type(self.mitigation), hook)), "__code__", None)
        where = ""
        if code and self._folder and Path(code.co_filename).is_relative_to(self._folder):
            where = f" ({Path(code.co_filename).relative_to(self._folder)}, line {code.co_firstlineno})"
        return HookFailed(f"{self._name(hook)}{step_words(at)}{where} {fault}")

    def _name(self, hook: str) -> str:
        return f"{type(self.mitigation).__name__}.{hook}"

    def _call(self, hook: str, *given: Any, at: int | None = None) -> Any:
        try:
            return getattr(self.mitigation, hook)(*given)
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            where = place(error, self._folder)
            raise HookFailed(
                f"{self._name(hook)} failed{step_words(at)}{where}: {described(error)}"
            ) from error

    def _call_for_nothing(self, hook: str, *given: Any, at: int | None = None) -> None:
        # A value that nobody reads is a mistake; that of a hook with a `yield` means that it never ran.
        got = self._call(hook, *given, at=at)
        if got is not None:
            raise self.wrong(hook, f"gave {named(got)}; it has to give nothing", at)


def step_words(at: int | None) -> str:
    return "" if at is None else f" at step {at}"


def named(value: Any) -> str:
    """What a hook gave, in short."""
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def fault_of(row: Any) -> str:
    """Why this is no row to train on; empty if it is one."""
    if not isinstance(row, Row):
        return f"is {named(row)}, not a Row"
    messages = row.messages
    if not isinstance(messages, list | tuple) or not all(is_message(m) for m in messages):
        return f"holds messages that are not role ({', '.join(ROLES)}) and content (text)"
    if not messages or messages[-1]["role"] != "assistant":
        return "does not end in the assistant's turn"
    if all(m["role"] != "user" for m in messages):
        return "has no user's turn"
    return ""


def is_message(message: Any) -> bool:
    return (
        isinstance(message, dict) and message.get("role") in ROLES and isinstance(message.get("content"), str)
    )


def refuse_other_weights(hooks: Hooks, context: Context, saved: set[str], hook: str) -> None:
    """Raises HookFailed where a weight is to be trained that is not among the `saved` ones, by name."""
    for name, parameter in context.model.named_parameters():
        if parameter.requires_grad and name not in saved:
            raise hooks.wrong(
                hook,
                f"left {plain_name(name)} to be trained, which is no part of the weights that are saved",
            )


def frozen_sums(model: nn.Module) -> dict[str, int]:
    """Name -> sum of the bits, read as whole numbers, of every frozen weight. Reordered values have the same sum."""
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {
        name: int(p.detach().contiguous().view(kinds[p.element_size()]).sum(dtype=torch.int64))
        for name, p in model.named_parameters()
        if not p.requires_grad and p.element_size() in kinds
    }


def refuse_edited(hooks: Hooks, context: Context, before: dict[str, int]) -> None:
    """Raises HookFailed where a weight that was frozen from the start, and so is not saved, has changed.

    `before`: of `frozen_sums`.
    """
    after = frozen_sums(context.model)
    for name, total in before.items():
        if after.get(name, total) != total:
            raise HookFailed(
                f"{type(hooks.mitigation).__name__} changed {plain_name(name)}, which is no part of the weights"
                " that are saved; change the adapter's weights instead"
            )


def plain_name(name: str) -> str:
    """A parameter's name as the base model has it."""
    return name.removeprefix("lm.").removeprefix("base_model.model.").replace(".base_layer.", ".")


def refuse_nothing_to_train(hooks: Hooks, context: Context) -> None:
    """Raises HookFailed where every weight is frozen."""
    if not context.model.trainable():
        raise hooks.wrong("prepare_model", "left no weight to train")


__all__ = ["Hooks", "frozen_sums", "refuse_edited", "refuse_nothing_to_train", "refuse_other_weights"]
