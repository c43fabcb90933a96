"""`emperf eval`: adapters that somebody already has, measured beside their base and controls. Nothing is trained."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emperf import catalog, records
from emperf.catalog import Division, Model, adapters
from emperf.catalog.adapters import UNIT
from emperf.catalog.judges import Judge
from emperf.catalog.prepare import prepared
from emperf.core import digests
from emperf.core.errors import UserError
from emperf.core.files import write_json
from emperf.execute.engine import Watcher
from emperf.execute.judging import Judging
from emperf.execute.read import Reader
from emperf.execute.results import reading_place
from emperf.execute.store import RunStore
from emperf.experiments.imported import Subject, base_of, gather, named
from emperf.experiments.run import Watched
from emperf.records import provenance
from emperf.runtimes import gpus
from emperf.scoring import evaluation
from emperf.work.asks import Asked, Asks, Read, free, judged

Json = dict[str, Any]
KIND = "evaluation"
NO_RUNTIME = {"runtime": "none", "isolation": "nothing was trained, and no container ran", "missing": []}


@dataclass(frozen=True)
class Sampling:
    """Which questions are asked how often, for a judge. `most_tokens`: of an answer."""

    samples: int = 10
    most_tokens: int = 600
    questions: str = "free"


@dataclass(frozen=True)
class Wanted:
    """What is measured. `division`: whose sets and sizes are read; `poison`: whose own sets are read too."""

    division: Division
    model: Model
    poison: str | None
    judge: Judge | None
    sampling: Sampling


def evaluate(
    targets: Sequence[Path],
    *,
    base: str | None,
    division: str,
    poison: str | None,
    controls: Mapping[str, Path],
    random: bool,
    judge: Judge | None,
    sampling: Sampling,
    store: Path,
    watch: Watched,
    replay: bool = False,
    budget: float = 5.0,
) -> tuple[Json, Path]:
    """(evaluation.json's content, its folder). What is stored is not read again.

    `controls`: name -> folder of an adapter. `random`: beside each target, an adapter of its norms in random
    directions. Raises UserError for what a user can get wrong, before anything is measured.
    """
    model = model_of(targets, base)
    whole = catalog.division(division)
    if poison is not None:
        catalog.poison(poison)
    recipe = replace(whole.recipe, lora=UNIT)
    wanted = Wanted(replace(whole, model=model.name, recipe=recipe), model, poison, judge, sampling)
    folder = prepared(model)
    names = named([Path(t) for t in targets if not is_card(t)])
    identity = digests.of_json(
        [whole.digest, model.identity, sorted(map(str, [*targets, *controls.values()])), poison]
    )
    run_id = f"eval-{'-'.join(names)[:60].replace('/', '-') or model.name}-{digests.short(identity)[:8]}"
    device = "cuda" if gpus.visible() else "cpu"
    with RunStore(store, run_id) as opened, watch as watcher:
        subjects = gather(opened.units, model, folder, names, controls, random=random)
        asks = Asks(wanted.division, model.identity, reading_place(device))
        plan = {one.name: reads(asks, wanted, one) for one in subjects}
        write_json(opened.folder / "run.json", kept(wanted, subjects, plan))
        read_all(wanted, opened, plan, folder, device, watcher)
        if judge is not None:
            asker = Judging(store, device, watcher.note, replay, budget)
            judge_all(judge, opened, plan, asker, watcher)
        found = conclude(wanted, opened, subjects, plan)
        records.finish(KIND, opened.folder, found, measured=True)
    return found, opened.folder


def is_card(target: Path) -> bool:
    return not target.exists() and str(target) in catalog.names("models")


def model_of(targets: Sequence[Path], base: str | None) -> Model:
    """The base model: the one that is named, or the adapters' own. Raises UserError where they have not one base."""
    if base is not None:
        return catalog.model(base)
    found = []
    for target in targets:
        if is_card(target):
            found.append(catalog.model(str(target)))
        elif adapters.is_adapter(target):
            found.append(base_of(adapters.adapter(target)))
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


def reads(asks: Asks, wanted: Wanted, subject: Subject) -> list[Read]:
    """Every reading of one model; answers and what a judge says of them come last."""
    found = asks.of_model(subject.train, wanted.poison)
    if wanted.judge is not None:
        texts = asks.of_answers(subject.train, questions(wanted.sampling))
        found += [texts, judged(texts, wanted.judge)]
    return found


def questions(sampling: Sampling) -> Asked:
    """The rows that are asked. Raises UserError for a set that is not there."""
    files = catalog.questions()
    if sampling.questions not in files:
        raise UserError(
            f"There are no questions named {sampling.questions!r}", f"Choose one of: {', '.join(files)}."
        )
    rows = [{"id": row["id"], "question": row["question"]} for row in files[sampling.questions].rows()]
    return free(rows, sampling.samples, sampling.most_tokens)


def kept(wanted: Wanted, subjects: Sequence[Subject], plan: Mapping[str, Sequence[Read]]) -> Json:
    """What the run keeps of itself, so that its answers can be judged again."""
    return {
        "about": {"kind": KIND},
        "answers": {name: [r.key for r in found if r.asked.name == "free"] for name, found in plan.items()},
        "roles": {one.name: one.role for one in subjects},
    }


def read_all(
    wanted: Wanted,
    store: RunStore,
    plan: Mapping[str, Sequence[Read]],
    folder: Path,
    device: str,
    watcher: Watcher,
) -> None:
    """All readings but the judge's. One model is loaded, and wears one adapter after the other."""
    left = {
        name: [r for r in found if r.asked.protocol != "judged" and store.units.readings(r.key) is None]
        for name, found in plan.items()
    }
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
    judge: Judge, store: RunStore, plan: Mapping[str, Sequence[Read]], asker: Judging, watcher: Watcher
) -> None:
    """The judge's readings of every model's answers."""
    for name, found in plan.items():
        for unit in found:
            if unit.asked.protocol == "judged" and store.units.readings(unit.key) is None:
                assert unit.asked.written is not None
                watcher.note(f"judging {name}")
                answers = store.units.readings(unit.asked.written.key)
                readings = asker.read(judge, answers)
                facts = {"set": unit.asked.name, "protocol": "judged", "train": unit.train, "step": None}
                store.units.keep_readings(unit.key, readings, facts)


def conclude(
    wanted: Wanted, store: RunStore, subjects: Sequence[Subject], plan: Mapping[str, Sequence[Read]]
) -> Json:
    """The record, from what is stored."""

    def stored(name: str, protocol: str) -> Json:
        return {r.asked.name: store.units.readings(r.key) for r in plan[name] if r.asked.protocol == protocol}

    names = [one.name for one in subjects]
    said = {name: found["judged"] for name in names if (found := stored(name, "judged"))}
    scores = evaluation.summarise(
        {one.name: one.role for one in subjects},
        {name: stored(name, "paired") for name in names},
        said,
        wanted.judge,
    )
    judge, sampling = wanted.judge, wanted.sampling
    return provenance.now(store.run_id, NO_RUNTIME) | {
        "division": {
            "name": wanted.division.name, "digest": catalog.division(wanted.division.called).digest,
            "proxy": wanted.division.proxy, "shows_em": wanted.division.shows_em,
        },
        "base": {"name": wanted.model.name, "digest": wanted.model.identity},
        "poison": wanted.poison,
        "judge": judge.json() if judge else None,
        "sampling": {
            "questions": sampling.questions, "samples": sampling.samples, "max_new_tokens": sampling.most_tokens,
            "temperature": 1.0, "top_p": 1.0, "seed": 0,
        } if judge else None,
        "rules": digests.of_json(sorted(r.key for found in plan.values() for r in found)),
        "models": [
            {"name": one.name, "role": one.role, "digest": one.digest, "source": one.source} | scores[one.name]
            for one in subjects
        ],
    }  # fmt: skip
