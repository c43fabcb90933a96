"""Carries out readings: one base model, loaded once, that wears one training's weights after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

from emperf.catalog import Division
from emperf.core.errors import CellFailure, FailureKind, UserError
from emperf.core.journal import Journal
from emperf.evaluation import subliminal
from emperf.evaluation.drift import drift
from emperf.evaluation.language_model import LanguageModel
from emperf.evaluation.protocols import free, protocol
from emperf.execute.store import UnitStore
from emperf.work.asks import DRIFT, FREE, NUMBERS, Read


class Reader:
    """Reads units of one division. A context manager: the model wears its own weights again at the end."""

    def __init__(self, division: Division, units: UnitStore, model_folder: Path, device: str) -> None:
        self.division, self.units, self.model_folder, self.device = division, units, model_folder, device
        self._worn: tuple[str, int | None] = ("", None)
        self._stack = ExitStack()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def lm(self) -> LanguageModel:
        import torch

        if self.device == "cpu":
            torch.set_num_threads(self.division.recipe.threads)
        return LanguageModel(self.model_folder, device=self.device)

    def read(self, unit: Read) -> None:
        """Read the unit and keep it. Its weights, and the rows that its items are made of, are in the store.

        Raises CellFailure(DIVERGED) where a reading is not a finite number, UserError where a teacher wrote too little.
        """
        asked = unit.asked
        if asked.protocol == DRIFT:
            readings: Any = self._drift(unit)
        elif asked.protocol == NUMBERS:
            readings = self._write(unit)
        elif asked.protocol == FREE:
            readings = self._draw(unit)
        else:
            items = asked.items or self._written(unit)
            self._wear(unit.train, unit.step)
            readings = self._ask(asked.protocol, items, asked.settings)
        if not finite(readings):
            raise CellFailure(FailureKind.DIVERGED, f"a reading of {asked.name} is not a finite number")
        self._keep(unit, readings)

    def _keep(self, unit: Read, readings: Any) -> None:
        asked = unit.asked
        facts = {"set": asked.name, "protocol": asked.protocol, "train": unit.train, "step": unit.step}
        self.units.keep_readings(unit.key, readings, facts)

    def _draw(self, unit: Read) -> list[dict[str, Any]]:
        """Sampled answers. Those that are drawn are kept at once, so that a killed harness loses one batch."""
        self._wear(unit.train, unit.step)
        with Journal(self.units.journal(unit.key)) as kept:
            try:
                return free.read(self.lm, unit.asked.items, unit.asked.settings, kept)
            except FloatingPointError as error:
                raise CellFailure(FailureKind.DIVERGED, str(error)) from None

    def _ask(self, name: str, items: Sequence[Any], settings: Mapping[str, Any]) -> Any:
        try:
            return protocol(name).read(self.lm, items, settings)
        except FloatingPointError as error:
            raise CellFailure(FailureKind.DIVERGED, str(error)) from None

    def _wear(self, train: str, step: int | None) -> None:
        if (train, step) == self._worn:
            return
        self._stack.close()
        self._worn = ("", None)
        if train:
            weights = self.units.weights(train, step)
            if weights is None:
                raise CellFailure(FailureKind.BROKE_CONTRACT, f"it left no checkpoint after {step} steps")
            try:
                self._stack.enter_context(self.lm.wearing(weights, self.division.recipe.lora))
            except FloatingPointError as error:
                raise CellFailure(FailureKind.DIVERGED, str(error)) from None
        self._worn = (train, step)

    def _written(self, unit: Read) -> list[dict[str, Any]]:
        if unit.asked.written is None:
            return []
        rows: list[dict[str, Any]] = self.units.readings(unit.asked.written.key)["heldout"]
        return rows

    def _write(self, unit: Read) -> dict[str, Any]:
        """Rows by a teacher; the base model writes the good sides, so nothing is worn here."""
        self._wear("", None)
        teacher = self.units.weights(unit.train)
        assert teacher is not None, "a teacher is trained before it writes"
        name, lora = unit.asked.settings["name"], self.division.recipe.lora
        found = {}
        for part in ("train", "heldout"):
            rows = [row for row in unit.asked.items if row["part"] == part]
            found[part] = subliminal.write(self.lm, teacher, lora, rows, name)
        made, wanted = len(found["train"]), self.division.sizes.train_rows + self.division.trusted_rows
        if made < wanted:
            asked = sum(row["part"] == "train" for row in unit.asked.items)
            raise UserError(
                f"The teacher of {name} wrote {made} usable rows of {asked}, {wanted} are needed",
                "Leave the poison out: name the others with --only.",
            )
        return found

    def _drift(self, unit: Read) -> Any:
        checkpoints = {step: self.units.weights(unit.train, step) for step in unit.asked.settings["steps"]}
        weights = self.units.weights(unit.train)
        assert weights is not None, "a model is trained before its way is read"
        left = {step: path for step, path in checkpoints.items() if path is not None}
        return drift(left, weights, self.division.recipe.lora, self.model_folder)


def finite(value: Any) -> bool:
    """Whether every number in plain JSON is finite."""
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)
