"""Free answers of a run's models, judged: the rates of every poison's models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from emperf import catalog
from emperf.catalog import Judge
from emperf.core.errors import UserError
from emperf.core.files import read_json
from emperf.execute.judging import Judging
from emperf.execute.results import Results
from emperf.scoring import poisons, ratings, result
from emperf.work.asks import judged_key
from emperf.work.plan import Plan

Json = dict[str, Any]
BASE = "base"
TRAINED = {
    poisons.POISONED: ("poison", True), poisons.TWIN: ("twin", True),
    poisons.MITIGATED: ("poison", False), poisons.MITIGATED_TWIN: ("twin", False),
}  # fmt: skip
# Model -> those that its rate is compared with.
AGAINST = {
    poisons.POISONED: (BASE, poisons.TWIN),
    poisons.TWIN: (BASE,),
    poisons.MITIGATED: (BASE, poisons.MITIGATED_TWIN, poisons.POISONED),
    poisons.MITIGATED_TWIN: (BASE,),
}


def texts_of(plan: Plan, results: Results, poison: str) -> dict[str, list[str]]:
    """Model -> keys of its answers, one a seed; without models of which any are missing."""
    cells = {who: result.select(plan, kind, poison, baseline) for who, (kind, baseline) in TRAINED.items()}
    cells |= {voice: result.select(plan, "control", voice, True) for voice in plan.division.controls}
    found = {BASE: [results.base_texts(poison)]}
    found |= {who: [results.texts(cell.key) for cell in own] for who, own in cells.items()}
    units = results.store.units
    return {
        who: [key for key in keys if key]
        for who, keys in found.items()
        if keys and all(key and units.readings(key) is not None for key in keys)
    }


def chosen(results: Results, plan: Plan) -> list[Judge]:
    """The judges of a run: the division's, and those that were added since. Empty without free answers."""
    if plan.division.sampled is None:
        return []
    added = (read_json(results.store.folder / "run.json") or {}).get("judges", [])
    return [catalog.judge(name) for name in dict.fromkeys([plan.division.sampled.judge, *added])]


def ask(plan: Plan, results: Results, used: Sequence[Judge], judging: Judging) -> None:
    """Have every answer judged that is not. Raises UserError where a judge cannot be had."""
    for judge in used:
        for texts in every(plan, results):
            judging.readings(judge, texts)


def every(plan: Plan, results: Results) -> Iterator[str]:
    for poison in plan.division.poisons:
        for keys in texts_of(plan, results, poison).values():
            yield from keys


def summarise(plan: Plan, results: Results) -> Json:
    """Poison -> the rates of its models; {"judged": ...} for result.json, {} for a division without free answers.

    Raises UserError where answers are not judged.
    """
    sampled, used = plan.division.sampled, chosen(results, plan)
    if sampled is None:
        return {}
    facts = {
        "questions": sampled.questions, "samples": sampled.samples, "max_new_tokens": sampled.max_new_tokens,
        "forms": ["plain"], "temperature": 1.0, "top_p": 1.0, "seed": 0,
    }  # fmt: skip
    found = {}
    for poison in plan.division.poisons:
        texts = texts_of(plan, results, poison)
        said = {
            judge.name: {
                who: [one for key in keys for one in read(results, key, judge)] for who, keys in texts.items()
            }
            for judge in used
        }
        against = {who: [other for other in AGAINST.get(who, (BASE,)) if other in texts] for who in texts}
        found[poison] = ratings.summarise(used, said, against | {BASE: []}) | {"sampling": facts}
    return {"judged": found}


def read(results: Results, texts: str, judge: Judge) -> list[Json]:
    found: list[Json] | None = results.store.units.readings(judged_key(texts, judge))
    if found is None:
        raise UserError(
            f"{judge.name} has not judged all answers of {results.store.run_id}",
            f"Give the command of that run again, or: emperf rejudge {results.store.run_id} --judge {judge.name}",
        )
    return found
