"""Carries out judgements: a judge asked of stored answers. Replies lie in STORE/judgements, one journal a judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.catalog import hub
from emperf.catalog.judges import LOCAL, Judge
from emperf.catalog.prepare import prepared
from emperf.core import digests
from emperf.core.errors import UserError
from emperf.core.journal import Journal
from emperf.evaluation.judges import endpoint
from emperf.evaluation.judges.endpoint import Endpoint
from emperf.evaluation.judges.local import Local
from emperf.evaluation.judges.prompts import Asked
from emperf.evaluation.language_model import LanguageModel
from emperf.evaluation.protocols import judged
from emperf.execute.store import UnitStore
from emperf.work.asks import judged_key

Json = dict[str, Any]
BUDGET = 5.0


@dataclass
class Judging:
    """`root`: the store. `device`: where a local judge runs. `note`: told what goes on. `replay`: nothing is asked, and
    an answer without a stored reply is an error. `budget`: US dollars that one reading may cost at most, by the
    estimate before it starts."""

    root: Path
    device: str
    note: Callable[[str], None]
    replay: bool = False
    budget: float = BUDGET
    _models: dict[str, LanguageModel] = field(default_factory=dict)

    def readings(self, judge: Judge, texts: str) -> list[Json]:
        """A judge's readings of the answers whose key is `texts`: the stored ones, or made now and stored.

        Raises UserError where the judge cannot be had, or costs more than the budget.
        """
        units, key = UnitStore(self.root), judged_key(texts, judge)
        found: list[Json] | None = units.readings(key)
        if found is None:
            answers = units.readings(texts)
            assert answers is not None, "answers are sampled before they are judged"
            found = self._read(judge, answers)
            units.keep_readings(
                key, found, {"set": "judged", "protocol": "judged", "judge": judge.name, "of": texts}
            )
        return found

    def _read(self, judge: Judge, answers: Sequence[Mapping[str, Any]]) -> list[Json]:
        """The readings of `emperf.evaluation.protocols.judged`. What was judged before is not asked again."""
        with Journal(self.path(judge)) as journal:
            left = judged.unasked(judge, answers, journal)
            if left and self.replay:
                raise UserError(
                    f"{len(left)} judgements of {judge.name} are not stored",
                    "Leave --replay out to have them made.",
                )
            if left:
                self._ask(judge, left, journal)
            return judged.readings(judge, answers, journal)

    def path(self, judge: Judge) -> Path:
        """Where the judge's replies are kept."""
        return self.root / "judgements" / f"{judge.name}-{digests.short(judge.identity)}.jsonl"

    def _ask(self, judge: Judge, left: Sequence[Asked], journal: Journal) -> None:
        self._check_cost(judge, left)
        asker: judged.Asker = (
            Local(self._model(judge), judge.scale.top) if judge.ask == LOCAL else Endpoint(judge)
        )
        try:
            judged.ask(
                asker, left, journal, lambda done, of: self.note(f"{judge.name}: {done} of {of} judgements")
            )
        finally:
            asker.close()

    def _check_cost(self, judge: Judge, left: Sequence[Asked]) -> None:
        dollars = endpoint.cost(judge, left)
        if dollars is None:
            return
        self.note(f"{len(left)} judgements of {judge.name} cost about ${dollars:.2f}")
        if dollars > self.budget:
            raise UserError(
                f"{len(left)} judgements of {judge.name} cost about ${dollars:.2f}; ${self.budget:.2f} are allowed",
                "Allow more with --budget, or judge fewer answers.",
            )

    def _model(self, judge: Judge) -> LanguageModel:
        """The local judge, loaded once."""
        if judge.model not in self._models:
            self.note(f"loading the judge {judge.name}")
            self._models[judge.model] = LanguageModel(folder_of(judge), device=self.device)
        return self._models[judge.model]


def check_judge(judge: Judge) -> None:
    """Raises UserError where a local judge's model is not on this machine, before anything is trained for it."""
    if judge.ask == LOCAL:
        folder_of(judge)


def folder_of(judge: Judge) -> Path:
    """The folder of a local judge's model: a prepared card's, or the hub's copy on this machine.

    Raises UserError where there is none.
    """
    if judge.model in catalog.names("models"):
        return prepared(catalog.model(judge.model))
    if not judge.revision:
        raise UserError(
            f"{judge.name} names the model {judge.model}, of which there is no card",
            "Give its card a revision.",
        )
    return hub.fetch(judge.model, judge.revision)
