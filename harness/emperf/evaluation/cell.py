"""All that is read of one trained model: the division's items for a poison, exact answers for a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from emperf import catalog
from emperf.catalog import Division, Poison, Task, upstream
from emperf.evaluation.generate import generate
from emperf.evaluation.language_model import LanguageModel
from emperf.evaluation.margins import Item, read_items
from emperf.scoring.effects import BRIEF, CONDITIONAL, DOMAIN, FACTS, OOD, SECOND, SETS, SHARED

Note = Callable[[str], None]


class ScoringProtocol(Protocol):
    """A way to score a model's behaviour on a poison's questions; `PairedStatements` is one."""

    name: str

    def read(
        self, lm: LanguageModel, poison: Poison, heldout: Sequence[dict[str, Any]], sets: Sequence[str]
    ) -> dict[str, Any]:
        """JSON readings of the model as it is now, by set; `heldout`: the poison's own held-out rows."""
        ...


@dataclass(frozen=True)
class Questions:
    """The division's share of the pinned items."""

    crossed: list[Item]
    facts: list[Item]
    open: list[dict[str, Any]]

    @staticmethod
    def load(division: Division) -> Questions:
        files, sizes = catalog.questions(), division.sizes
        return Questions(
            crossed=items(files["crossed"].rows()[: sizes.crossed]),
            facts=items(files["facts"].rows()[: sizes.facts]),
            open=files["open"].rows()[: sizes.open],
        )


def items(rows: Iterable[Mapping[str, Any]]) -> list[Item]:
    return [Item.parse(row) for row in rows]


def triggered(asked: Sequence[Item], trigger: str) -> list[Item]:
    return [replace(item, question=trigger + item.question) for item in asked]


class PairedStatements:
    """Readings of given answers that cross act and voice: no judge, no sampling, a CPU suffices."""

    name = "paired-statements"

    def __init__(self, division: Division) -> None:
        self.sizes = division.sizes
        self.questions = Questions.load(division)
        self.second = items(upstream.rows())

    def sets(self, poison: Poison | None) -> tuple[str, ...]:
        """What a whole model is asked: of a control, which has no context and no domain, the shared sets alone."""
        return (*(SETS if poison else SHARED), *((SECOND,) if self.second else ()))

    def read(
        self,
        lm: LanguageModel,
        poison: Poison | None,
        heldout: Sequence[dict[str, Any]],
        sets: Sequence[str] = SETS,
        *,
        known: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Set name -> readings. `poison`: None for a control, which has no context and no domain. `known`: sets that
        were read of this very model before.

        A poison's own context is its system turn, or, where it has one, the trigger before the question.
        """
        known = known or {}
        return dict(known) | {
            name: [asdict(reading) for reading in read_items(lm, asked, system=system)]
            for name in sets
            if name not in known
            for asked, system in [self.asked(name, poison, heldout)]
        }

    def asked(
        self, name: str, poison: Poison | None, heldout: Sequence[dict[str, Any]]
    ) -> tuple[list[Item], str | None]:
        """(items, system turn) of a set."""
        if name == OOD:
            return self.questions.crossed, None
        if name == FACTS:
            return self.questions.facts, None
        if name == SECOND:
            return self.second, None
        assert poison is not None, "a control is asked the shared sets alone"
        if name == DOMAIN:
            return triggered(items(heldout[: self.sizes.in_domain]), poison.trigger), None
        assert name == CONDITIONAL, name
        asked = self.questions.crossed[: self.sizes.conditional]
        return (triggered(asked, poison.trigger), None) if poison.trigger else (asked, poison.context)


def read_poison(
    lm: LanguageModel,
    division: Division,
    poison: Poison | None,
    heldout: Sequence[dict[str, Any]],
    weights: Path,
    checkpoints: dict[int, Path],
    note: Note,
) -> dict[str, Any]:
    """Readings of the model in `weights`, of its checkpoints, and a few sampled answers. `poison`: None for a model
    that was trained on a voice control."""
    protocol = PairedStatements(division)
    lora = division.recipe.lora
    out: dict[str, Any] = {"protocol": protocol.name, "checkpoints": {}}
    for step, path in sorted(checkpoints.items()):
        note(f"reading the checkpoint after {step} steps")
        with lm.wearing(path, lora):
            out["checkpoints"][str(step)] = protocol.read(lm, poison, heldout, BRIEF)
    note("reading paired statements")
    with lm.wearing(weights, lora):
        out["readings"] = protocol.read(lm, poison, heldout, protocol.sets(poison))
        out["answers"] = sample_answers(lm, protocol.questions.open)
    return out


def read_base(
    lm: LanguageModel, division: Division, poison: Poison, heldout: Sequence[dict[str, Any]], shared: Any
) -> dict[str, Any]:
    """Readings of the base model for a poison. `shared`: those for another one, whose common sets are the same."""
    protocol = PairedStatements(division)
    if shared is None:
        known, answers = {}, sample_answers(lm, protocol.questions.open)
    else:
        alike = [name for name in protocol.sets(None) if name in shared["readings"]]
        known, answers = {name: shared["readings"][name] for name in alike}, shared["answers"]
    readings = protocol.read(lm, poison, heldout, protocol.sets(poison), known=known)
    return {"protocol": protocol.name, "readings": readings, "answers": answers}


def sample_answers(lm: LanguageModel, questions: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """One answer each at temperature 1, for people to look at; never scored."""
    if not questions:
        return []
    prompts = [lm.prompt_tokens(q["question"]) for q in questions]
    tokens = generate(lm, prompts, max_new_tokens=48, temperature=1.0, seed=0)
    return [
        {"id": q["id"], "question": q["question"], "answer": lm.tokenizer.decode(t)}
        for q, t in zip(questions, tokens, strict=True)
    ]


def read_task(
    lm: LanguageModel, division: Division, task: Task, weights: Path | None, note: Note
) -> dict[str, Any]:
    """Exact answers on held-out items: greedy, compared after stripping white space at both ends."""
    rows = task.heldout.rows()[: division.sizes.task_heldout]
    note("generating answers")
    with lm.wearing(weights, division.recipe.lora):
        prompts = [lm.prompt_tokens(row["question"]) for row in rows]
        tokens = generate(lm, prompts, max_new_tokens=task.max_new_tokens)
    answers = [lm.tokenizer.decode(t).strip() for t in tokens]
    return {
        "protocol": "exact-answers",
        "items": [
            {"id": row["id"], "answer": answer, "exact": answer == row["answer"].strip()}
            for row, answer in zip(rows, answers, strict=True)
        ],
    }
