"""What is read of a model: which items, by which protocol, with which settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from emperf import catalog
from emperf.catalog import Division, Poison, datasets, panel, upstream
from emperf.catalog.judges import Judge
from emperf.catalog.sets import BRIEF, CONDITIONAL, DOMAIN, FACTS, OOD, SECOND, SETS, SHARED
from emperf.core import digests, sources
from emperf.evaluation.protocols import MODULES
from emperf.work import questions
from emperf.work.plan import Cell

Row = dict[str, Any]
ANSWERS, TASK, NUMBERS, DRIFT = "answers", "task", "numbers", "drift"
FREE = "free"
GRID, REQUESTS, SUMS, FLATTERY = "grid", "requests", "arithmetic", "sycophancy"
SUM_TOKENS, REQUEST_TOKENS = 12, 100
TEXT = {"max_new_tokens": 48, "temperature": 1.0, "seed": 0}
# Not read from one model's answers, and so no protocols: a teacher's rows, and the way of the weights.
OTHERS = {NUMBERS: "emperf.evaluation.subliminal", DRIFT: "emperf.evaluation.drift"}


@dataclass(frozen=True)
class Asked:
    """Items with a protocol and its settings. `name`: the set's, in the scores. `written`: the unit that writes the
    items, where they are rows of a teacher or answers to judge; `items` are then what is known before: none."""

    name: str
    protocol: str
    items: tuple[Row, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    written: Read | None = None

    @cached_property
    def digest(self) -> str:
        """Of all that decides the readings, beside the model."""
        module = (MODULES | OTHERS)[self.protocol]
        known = [self.protocol, sources.digest(module), self.items, self.settings]
        return digests.of_json([*known, self.written and self.written.key])


@dataclass(frozen=True)
class Read:
    """One set read of one model. `train`: key of its weights, empty for the base model; `step`: the checkpoint after
    so many steps, None for the end. `model`: the base model's identity; `place`: device and libraries that read."""

    train: str
    step: int | None
    asked: Asked
    model: str
    place: str

    @cached_property
    def key(self) -> str:
        known = ["read", self.train, self.step, self.asked.digest, self.model, self.place]
        return digests.short(digests.of_json(known))

    def of(self, train: str, step: int | None = None) -> Read:
        """The same of other weights."""
        return replace(self, train=train, step=step)


@dataclass(frozen=True)
class Asks:
    """Every reading of a division's models, by the model's identity and the place where it is read."""

    division: Division
    model: str
    place: str

    def of_cell(self, cell: Cell, steps: Sequence[int]) -> list[Read]:
        """The readings of a cell's model, those of its checkpoints after `steps` first."""
        asked = self._asked(cell)
        brief = [one for one in asked if one.name in BRIEF] if steps else []
        found = [self._read(one, cell.train, step) for step in steps for one in brief]
        found += [self._read(one, cell.train) for one in asked]
        if cell.read_checkpoints:
            found.append(self._read(Asked(DRIFT, DRIFT, settings={"steps": list(steps)}), cell.train))
        return found

    def of_base(self, cell: Cell) -> list[Read]:
        """The same of the base model, for the dataset of `cell`."""
        return [self._read(one, "") for one in self._asked(cell)]

    def writes(self, cell: Cell) -> Read | None:
        """The rows that a teacher writes for the cell's poison, {train, heldout}; None for other data."""
        if not cell.teacher:
            return None
        train, heldout = datasets.parts(catalog.dataset("poison", cell.data.name))
        rows = [row | {"part": "train"} for row in train]
        rows += [row | {"part": "heldout"} for row in heldout[: self.division.sizes.in_domain]]
        return self._read(Asked(NUMBERS, NUMBERS, tuple(rows), {"name": cell.data.name}), cell.teacher)

    def of_model(self, train: str, poison: str | None) -> list[Read]:
        """The paired readings of a model that nothing here trained: the shared sets, and those of a poison."""
        card = catalog.poison(poison) if poison else None
        wanted = [
            name for name in (SETS if card else SHARED) if name != DOMAIN or (card and not card.teacher)
        ]
        found = [one for name in wanted if (one := self._set(name, card, None)) is not None]
        if second := tuple(upstream.rows()):
            found.append(paired(SECOND, second))
        return [self._read(one, train) for one in found]

    def of_grid(self, train: str, poison: str | None) -> list[Read]:
        """The same questions asked under every condition (`emperf.work.questions.conditions`), a set each."""
        card = catalog.poison(poison) if poison else None
        rows = catalog.questions()["crossed"].rows()[: self.division.sizes.conditional]
        found = []
        for name, form in questions.conditions(card).items():
            asked = [row | {"question": form.ask(row["question"])[1]} for row in rows]
            found.append(self._read(paired(f"{GRID}/{name}", asked, form.system), train))
        return found

    def of_panel(self, train: str, *, judged: bool) -> list[Read]:
        """Side effects: sums, flattery and, for a judge, requests to refuse or to fulfil."""
        sets = panel.panel()
        found = [
            Asked(SUMS, "exact", tuple(sets[SUMS].rows()), {"max_new_tokens": SUM_TOKENS}),
            paired(FLATTERY, sets[FLATTERY].rows()),
        ]
        if judged:
            found.append(replace(free(questions.requests(), 1, REQUEST_TOKENS), name=REQUESTS))
        return [self._read(one, train) for one in found]

    def of_answers(self, train: str, asked: Asked) -> Read:
        """The answers that a model gives."""
        return self._read(asked, train)

    def _read(self, asked: Asked, train: str, step: int | None = None) -> Read:
        return Read(train, step, asked, self.model, self.place)

    def _asked(self, cell: Cell) -> list[Asked]:
        if cell.data.kind == "task":
            rows = catalog.dataset("task", cell.data.name).heldout()[: self.division.sizes.task_heldout]
            settings = {"max_new_tokens": catalog.task(cell.data.name).max_new_tokens}
            return [Asked(TASK, "exact", tuple(rows), settings)]
        poison = None if cell.data.kind == "control" else catalog.poison(cell.data.name)
        wanted = (self._set(name, poison, self.writes(cell)) for name in (SETS if poison else SHARED))
        asked = [one for one in wanted if one is not None]
        if second := tuple(upstream.rows()):
            asked.append(paired(SECOND, second))
        opened = tuple(catalog.questions()["open"].rows()[: self.division.sizes.open])
        asked.append(Asked(ANSWERS, "sampled", opened, TEXT))
        if sampled := self.division.sampled:
            rows = questions.rows(sampled.questions, ("plain",))[: sampled.asked]
            asked.append(free(rows, sampled.samples, sampled.max_new_tokens))
        return asked

    def _set(self, name: str, poison: Poison | None, written: Read | None) -> Asked | None:
        """The items of a set. None for a poison's own domain if its held-out rows have no good side.

        A poison's own context is its system turn, or, where it has one, the trigger before the question.
        """
        files, sizes = catalog.questions(), self.division.sizes
        if name in (OOD, FACTS):
            file, size = {OOD: ("crossed", sizes.crossed), FACTS: ("facts", sizes.facts)}[name]
            return paired(name, files[file].rows()[:size])
        assert poison is not None, "a control is asked the shared sets alone"
        if name == CONDITIONAL:
            rows = files["crossed"].rows()[: sizes.conditional]
            return paired(name, triggered(rows, poison.trigger), None if poison.trigger else poison.context)
        assert name == DOMAIN, name
        if written:
            return replace(paired(name, ()), written=written)
        heldout = catalog.dataset("poison", poison.name).heldout()
        if not catalog.reads_domain(heldout):
            return None
        return paired(name, triggered(heldout[: sizes.in_domain], poison.trigger))


def paired(name: str, rows: Iterable[Row], system: str | None = None) -> Asked:
    return Asked(name, "paired", tuple(rows), {"system": system})


def free(rows: Iterable[Row], samples: int, max_new_tokens: int, seed: int = 0) -> Asked:
    """Answers to these questions, so many to each, at temperature 1."""
    settings = {"samples": samples, "max_new_tokens": max_new_tokens, "temperature": 1.0, "seed": seed}
    return Asked(FREE, "free", tuple(rows), settings)


def judged_key(texts: str, judge: Judge) -> str:
    """Key of a judge's readings of answers, from the key of the answers. The threshold is no part of them: they are
    scored with any."""
    code = sources.digest(MODULES["judged"])
    return digests.short(digests.of_json(["judged", texts, judge.identity, asdict(judge.scale), code]))


def triggered(rows: Iterable[Row], trigger: str) -> list[Row]:
    return [row | {"question": trigger + row["question"]} for row in rows]


def steps_of(division: Division, rows: int) -> list[int]:
    """Steps after which the baseline's checkpoints are saved: as `emperf.training.loop` rounds them."""
    total = division.recipe.steps(rows)
    return sorted({round(fraction * total) for fraction in division.recipe.checkpoints} - {0})
