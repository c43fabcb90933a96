"""`emperf eval`: adapters that somebody already has, measured beside their base and controls. Nothing is trained."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emperf import catalog, records
from emperf.catalog import Division, Model, adapters
from emperf.catalog.adapters import UNIT
from emperf.catalog.judges import Judge
from emperf.catalog.prepare import prepared
from emperf.core import digests
from emperf.core.errors import UserError
from emperf.core.files import read_json, write_json
from emperf.execute.engine import Watcher
from emperf.execute.judging import Judging
from emperf.execute.read import Reader
from emperf.execute.results import reading_place
from emperf.execute.store import RunStore, UnitStore
from emperf.experiments.imported import Subject, base_of, gather, named
from emperf.experiments.run import Watched
from emperf.records import provenance
from emperf.runtimes import gpus
from emperf.scoring import evaluation, ratings, side_effects
from emperf.work.asks import FREE, REQUESTS, Asked, Asks, Read, free, judged_key
from emperf.work.questions import FORMS, rows

Json = dict[str, Any]
KIND = "evaluation"
NO_RUNTIME = {"runtime": "none", "isolation": "nothing was trained, and no container ran", "missing": []}


@dataclass(frozen=True)
class Sampling:
    """Which questions are asked in which forms and how often, for a judge. `max_new_tokens`: of an answer."""

    samples: int = 10
    max_new_tokens: int = 600
    questions: str = FREE
    forms: tuple[str, ...] = FORMS

    def json(self) -> Json:
        """As records hold it."""
        return asdict(self) | {"forms": list(self.forms), "temperature": 1.0, "top_p": 1.0, "seed": 0}


@dataclass(frozen=True)
class Wanted:
    """What is measured. `division`: whose sets and sizes are read; `poison`: whose own sets are read too. Without
    `judges` no answers are sampled. `grid`: the same questions under every condition; `panel`: side effects."""

    division: Division
    model: Model
    poison: str | None
    judges: tuple[Judge, ...]
    sampling: Sampling
    grid: bool = False
    panel: bool = False


def evaluate(
    targets: Sequence[Path],
    *,
    base: str | None,
    division: str,
    poison: str | None,
    controls: Mapping[str, Path],
    random: bool,
    chosen: Sequence[Judge],
    sampling: Sampling,
    store: Path,
    watch: Watched,
    grid: bool = False,
    panel: bool = False,
    replay: bool = False,
    budget: float = 5.0,
) -> tuple[Json, Path]:
    """(evaluation.json's content, its folder). What is stored is not read again.

    `controls`: name -> folder of an adapter. `random`: beside each target, an adapter of its norms in random
    directions. `chosen`: the judges. `grid`, `panel`: as of `Wanted`. Raises UserError for what a user can get wrong,
    before anything is measured.
    """
    model = model_of(targets, base)
    whole = catalog.division(division)
    if poison is not None:
        catalog.poison(poison)
    read_in = replace(whole, model=model.name, recipe=replace(whole.recipe, lora=UNIT))
    wanted = Wanted(read_in, model, poison, tuple(chosen), sampling, grid, panel)
    asked = asked_of(sampling) if chosen else None
    folder, names = prepared(model), named([Path(t) for t in targets if not is_card(t)])
    device = "cuda" if gpus.visible() else "cpu"
    with RunStore(store, run_id(wanted, names, [*targets, *controls.values()])) as opened, watch as watcher:
        subjects = gather(opened.units, model, folder, names, controls, random=random)
        asks = Asks(wanted.division, model.identity, reading_place(device))
        plan = {one.name: reads(asks, wanted, one, asked) for one in subjects}
        facts = facts_of(wanted, subjects, plan) | {"run_id": opened.run_id, "created": time.time()}
        write_json(opened.folder / "run.json", facts)
        read_all(wanted, opened, plan, folder, device, watcher)
        asker = Judging(store, device, watcher.note, replay, budget)
        for texts in (facts["answers"], facts["requests"]):
            judge_all(chosen, texts, asker, watcher)
        found = conclude(opened.run_id, facts, opened.units)
        records.finish(KIND, opened.folder, found, measured=True)
    return found, opened.folder


def is_card(target: Path) -> bool:
    return not target.exists() and str(target) in catalog.names("models")


def model_of(targets: Sequence[Path], base: str | None) -> Model:
    """The base model: the one that is named, or the adapters' own. Raises UserError where they have not one base."""
    found = []
    for target in targets:
        if is_card(target):
            found.append(catalog.model(str(target)))
        elif adapters.is_adapter(target):
            own = adapters.adapter(target)
            found.append(catalog.model(base) if base is not None else base_of(own))
        elif (target / "config.json").is_file():
            raise UserError(
                f"{target} is a whole model, and no card describes it", f"Add it: emperf add model {target}."
            )
        else:
            raise UserError(
                f"{target} is no folder with an adapter, and no model card",
                "Give a folder that PEFT saved, or a name of: emperf list models.",
            )
    if len({model.name for model in found}) > 1:
        raise UserError(
            f"The targets have several bases: {', '.join(sorted({m.name for m in found}))}",
            "Measure those of one base at a time.",
        )
    return found[0]


def run_id(wanted: Wanted, names: Mapping[str, Path], sources: Sequence[Path]) -> str:
    whole = [
        wanted.division.digest, wanted.model.identity, wanted.poison,
        asdict(wanted.sampling) if wanted.judges else None, wanted.grid, wanted.panel,
        sorted(str(source.resolve()) for source in sources),
    ]  # fmt: skip
    called = "-".join(names).replace("/", "-")[:60] or wanted.model.name
    return f"eval-{called}-{digests.short(digests.of_json(whole))[:8]}"


def asked_of(sampling: Sampling) -> Asked:
    """The rows that are asked. Raises UserError for a set that is not there."""
    asked = rows(sampling.questions, sampling.forms)
    return free(asked, sampling.samples, sampling.max_new_tokens)


def reads(asks: Asks, wanted: Wanted, subject: Subject, asked: Asked | None) -> list[Read]:
    """Every reading of one model; sampled answers come last."""
    found = asks.of_model(subject.train, wanted.poison)
    if wanted.grid:
        found += asks.of_grid(subject.train, wanted.poison)
    if wanted.panel:
        found += asks.of_panel(subject.train, judged=asked is not None)
    return [*found, asks.of_answers(subject.train, asked)] if asked else found


def facts_of(wanted: Wanted, subjects: Sequence[Subject], plan: Mapping[str, Sequence[Read]]) -> Json:
    """What the run keeps of itself: all that the record is made of, beside what the store holds."""

    def keys(protocol: str) -> dict[str, dict[str, str]]:
        return {
            name: {read.asked.name: read.key for read in found if read.asked.protocol == protocol}
            for name, found in plan.items()
        }

    texts, division = keys("free"), wanted.division
    return {
        "about": {"kind": KIND, "judges": [judge.name for judge in wanted.judges]},
        "division": {
            "name": division.called, "digest": division.digest, "proxy": division.proxy, "shows_em": division.shows_em,
        },
        "base": {"name": wanted.model.name, "digest": wanted.model.identity},
        "poison": wanted.poison,
        "sampling": wanted.sampling.json(),
        "subjects": [asdict(one) for one in subjects],
        "readings": keys("paired"),
        "sums": {name: key for name, found in keys("exact").items() for key in found.values()},
        "answers": {name: found[FREE] for name, found in texts.items() if FREE in found},
        "requests": {name: found[REQUESTS] for name, found in texts.items() if REQUESTS in found},
    }  # fmt: skip


def read_all(
    wanted: Wanted,
    store: RunStore,
    plan: Mapping[str, Sequence[Read]],
    folder: Path,
    device: str,
    watcher: Watcher,
) -> None:
    """All readings but the judges'. One model is loaded, and wears one adapter after the other."""
    left = {name: [r for r in found if store.units.readings(r.key) is None] for name, found in plan.items()}
    watcher.begin(
        len(plan), sum(not found for found in left.values()), [n for n, found in left.items() if found]
    )
    with Reader(wanted.division, store.units, folder, device) as reader:
        for name, found in left.items():
            if found:
                watcher.cell(name)
            for unit in found:
                watcher.note(f"reading {unit.asked.name}")
                reader.read(unit)
            if found:
                watcher.end(name, None)
    # A local judge may need the memory.
    del reader
    gc.collect()


def judge_all(
    chosen: Sequence[Judge], answers: Mapping[str, str], judging: Judging, watcher: Watcher
) -> None:
    """Every judge's readings of every model's answers. `answers`: model -> key of its answers."""
    for judge in chosen:
        for name, texts in answers.items():
            watcher.note(f"{judge.name} judges {name}")
            judging.readings(judge, texts)


def conclude(run: str, facts: Json, units: UnitStore) -> Json:
    """The record. Raises as `derived`."""
    return provenance.now(run, NO_RUNTIME) | derived(facts, units)


def derived(facts: Json, units: UnitStore) -> Json:
    """What of the record follows from what the run kept of itself and from the store.

    Raises UserError where a reading is missing.
    """
    roles = {one["name"]: one["role"] for one in facts["subjects"]}
    paired = {
        name: {n: stored(units, key) for n, key in sets.items()} for name, sets in facts["readings"].items()
    }
    scores = evaluation.summarise(roles, paired)
    chosen = [catalog.judge(name) for name in facts["about"]["judges"]]

    def said(texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        return {
            judge.name: {name: stored(units, judged_key(key, judge)) for name, key in texts.items()}
            for judge in chosen
        }

    keys = [key for sets in facts["readings"].values() for key in sets.values()] + list(
        facts["sums"].values()
    )
    keys += [
        judged_key(key, judge)
        for judge in chosen
        for part in ("answers", "requests")
        for key in facts[part].values()
    ]
    against = evaluation.compared(roles)
    judged = (
        ratings.summarise(chosen, said(facts["answers"]), against) | {"sampling": facts["sampling"]}
        if chosen
        else None
    )
    sums = {name: stored(units, key) for name, key in facts["sums"].items()}
    requests = said(facts["requests"]) if facts["requests"] else {}
    return {
        **{name: facts[name] for name in ("division", "base", "poison")},
        "rules": digests.of_json(sorted(keys)),
        "models": [
            {name: one[name] for name in ("name", "role", "digest", "source")}
            | scores[one["name"]]
            | {"panel": side_effects.summarise(one["name"], sums, requests)}
            for one in facts["subjects"]
        ],
        "judged": judged,
    }


def stored(units: UnitStore, key: str) -> Any:
    found = units.readings(key)
    if found is None:
        raise UserError(
            "A reading of this evaluation is not there any more", "Give the command of that evaluation again."
        )
    return found


def facts_in(folder: Path) -> Json:
    """What an evaluation kept of itself. Raises UserError where the folder holds none."""
    facts = read_json(folder / "run.json")
    if not isinstance(facts, dict) or (facts.get("about") or {}).get("kind") != KIND:
        raise UserError(
            f"{folder.name} is no evaluation", "Name the folder or the id of one (emperf list runs)."
        )
    return facts
