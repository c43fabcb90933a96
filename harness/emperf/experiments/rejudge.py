"""`emperf rejudge`: one more judge for the stored answers of a run or an evaluation. Only the judge is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emperf import records
from emperf.catalog import Judge
from emperf.core.errors import UserError
from emperf.core.files import read_json, write_json
from emperf.execute.engine import Watcher
from emperf.execute.judging import Judging
from emperf.execute.store import RunStore
from emperf.experiments import evaluate, judging
from emperf.experiments.about import again
from emperf.experiments.conclude import derived
from emperf.experiments.run import Watched
from emperf.runtimes import gpus

Json = dict[str, Any]


def rejudge(
    folder: Path, judge: Judge, watch: Watched, *, replay: bool = False, budget: float = 5.0
) -> tuple[str, Json]:
    """(kind of the record, its content). It is written in the place of the one that lay there, with all judges so far.

    `replay`: use stored replies alone. Raises UserError where there are no answers.
    """
    kind = records.kind_in(folder)
    of_kind = {"result": of_result, evaluate.KIND: of_evaluation}
    if kind not in of_kind:
        raise UserError(f"{folder.name} is a {kind}, and sampled no answers", "Name a run or an evaluation.")

    with RunStore(folder.parents[1], folder.name) as opened, watch as watcher:
        device = "cuda" if gpus.visible() else "cpu"
        asker = Judging(opened.root, device, watcher.note, replay, budget)
        return kind, of_kind[kind](opened, judge, asker, watcher)


def of_evaluation(opened: RunStore, judge: Judge, asker: Judging, watcher: Watcher) -> Json:
    facts = evaluate.facts_in(opened.folder)
    if not facts["answers"]:
        raise UserError(
            f"{opened.run_id} sampled no answers", "Give its emperf eval command again, with --judge."
        )
    watcher.begin(len(facts["answers"]), 0)
    for texts in (facts["answers"], facts["requests"]):
        evaluate.judge_all([judge], texts, asker, watcher)
    facts["about"]["judges"] = list(dict.fromkeys([*facts["about"]["judges"], judge.name]))
    write_json(opened.folder / "run.json", facts)
    found = evaluate.conclude(opened.run_id, facts, opened.units)
    return records.finish(evaluate.KIND, opened.folder, found, measured=True)


def of_result(opened: RunStore, judge: Judge, asker: Judging, watcher: Watcher) -> Json:
    kind, plans, results = again(opened.folder)
    plan = next(iter(plans.values()))
    if plan.division.sampled is None:
        raise UserError(f"{opened.run_id} sampled no answers", "Run a division that has them, such as nano.")
    before = records.read(kind, opened.folder / f"{kind}.json")
    watcher.begin(1, 0)
    judging.ask(plan, results, [judge], asker)
    facts = read_json(opened.folder / "run.json")
    facts["judges"] = list(dict.fromkeys([*facts.get("judges", []), judge.name]))
    write_json(opened.folder / "run.json", facts)
    return records.finish(kind, opened.folder, before | derived(plan, results), measured=True)
