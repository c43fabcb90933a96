"""Answers and judgements as others read them: Inspect's logs, and tables with the columns of the field's scripts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emperf import catalog, records
from emperf.catalog import Judge
from emperf.core.errors import UserError
from emperf.core.files import disk_errors
from emperf.core.version import VERSION
from emperf.execute.store import UnitStore
from emperf.experiments import evaluate, judging
from emperf.experiments.about import again
from emperf.work.asks import judged_key

Json = dict[str, Any]
COLUMNS = (
    "model", "judge", "question_id", "form", "sample", "question", "answer", "aligned", "coherent", "class",
    "why_missing",
)  # fmt: skip
# Of Inspect's log format, as its library 0.3 writes and reads it.
INSPECT_VERSION = 2


@dataclass(frozen=True)
class Said:
    """What one judge said of one model's answers. `model`: its name in the record, with the poison where there are
    several."""

    model: str
    judge: Judge
    readings: list[Json]


def said_in(folder: Path) -> Iterator[Said]:
    """Every model and judge of a run or an evaluation. Raises UserError where no answers were judged."""
    kind, units = records.kind_in(folder), UnitStore(folder.parents[1])
    found: list[tuple[str, str]] = []
    used: list[Judge] = []
    if kind == evaluate.KIND:
        facts = evaluate.facts_in(folder)
        found = list(facts["answers"].items())
        used = [catalog.judge(name) for name in facts["about"]["judges"]]
    elif kind == "result":
        _, plans, results = again(folder)
        plan = next(iter(plans.values()))
        used = judging.chosen(results, plan)
        for poison in plan.division.poisons if used else ():
            for who, keys in judging.texts_of(plan, results, poison).items():
                found += [(f"{poison}/{who}/{seed}", key) for seed, key in enumerate(keys)]
    if not found or not used:
        raise UserError(
            f"{folder.name} holds no judged answers", "Judge them: emperf rejudge RUN --judge NAME."
        )
    for judge in used:
        for model, texts in found:
            readings = units.readings(judged_key(texts, judge))
            if readings is None:
                raise UserError(f"{judge.name} has not judged {model}", "Give the command of that run again.")
            yield Said(model, judge, readings)


def rows(folder: Path) -> Iterator[Json]:
    """A row for each answer and judge: COLUMNS. Scores are 0 to 100, None where there is none."""
    for said in said_in(folder):
        for one in said.readings:
            yield {
                "model": said.model, "judge": said.judge.name, "question_id": one["item"], "form": one.get("form"),
                "sample": one["sample"], "question": one["question"], "answer": one["answer"],
                "aligned": one["aligned"]["score"], "coherent": one["coherent"]["score"],
                "class": one["aligned"]["kind"],
                "why_missing": one["aligned"]["why"] or one["coherent"]["why"] or None,
            }  # fmt: skip


def frame(folder: Path) -> Any:
    """The rows as a pandas data frame."""
    import pandas as pd

    return pd.DataFrame(rows(folder), columns=list(COLUMNS))


def write_inspect(folder: Path, into: Path) -> list[Path]:
    """A log of Inspect for each model and judge, written into a folder; their paths.

    Answers are samples (an epoch for each answer to a question), a judge's scores are two scorers.
    """
    created = records.read(records.kind_in(folder), folder / f"{records.kind_in(folder)}.json")["created"]
    written = []
    with disk_errors(into):
        into.mkdir(parents=True, exist_ok=True)
        for said in said_in(folder):
            name = f"{said.model}-{said.judge.name}".replace("/", "-")
            path = into / f"{name}.json"
            path.write_text(
                json.dumps(inspect_log(folder.name, created, said), indent=1) + "\n", encoding="utf-8"
            )
            written.append(path)
    return written


def inspect_log(run: str, created: str, said: Said) -> Json:
    """One log, as JSON."""
    at = created.replace("Z", "+00:00")
    questions = list(dict.fromkeys(one["item"] for one in said.readings))
    samples = [sample(said.model, one) for one in said.readings]
    means = {
        aspect: mean([one[aspect]["score"] for one in said.readings]) for aspect in ("aligned", "coherent")
    }
    return {
        "version": INSPECT_VERSION,
        "status": "success",
        "eval": {
            "eval_id": identity(run, said.model, said.judge.name), "run_id": run, "created": at,
            "task": f"emperf/{run}", "task_id": identity(run), "task_version": 0, "model": f"emperf/{said.model}",
            "dataset": {"name": "free answers", "samples": len(questions), "sample_ids": questions},
            "config": {"epochs": max(one["epoch"] for one in samples)}, "packages": {"emperf": VERSION},
            "metadata": {"judge": said.judge.json()},
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {
            "total_samples": len(samples), "completed_samples": len(samples),
            "scores": [
                {"name": aspect, "scorer": aspect, "params": {}, "metrics": {
                    "mean": {"name": "mean", "value": value, "params": {}},
                }}
                for aspect, value in means.items() if value is not None
            ],
        },
        "stats": {"started_at": at, "completed_at": at},
        "samples": samples,
    }  # fmt: skip


def sample(model: str, one: Json) -> Json:
    """One answer. A judgement that is missing is no score."""
    scores = {
        aspect: {
            "value": one[aspect]["score"],
            "answer": one["answer"],
            "explanation": one[aspect]["why"] or None,
        }
        for aspect in ("aligned", "coherent")
        if one[aspect]["score"] is not None
    }
    turns = [("user", one["question"]), ("assistant", one["answer"])]
    messages = [{"id": identity(one["id"], role), "role": role, "content": text} for role, text in turns]
    stop = "stop" if one.get("ended", True) else "max_tokens"
    return {
        "id": one["item"] if one.get("form") is None else f"{one['item']}/{one['form']}",
        "epoch": one["sample"] + 1,
        "input": one["question"],
        "target": "",
        "messages": messages,
        "output": {
            "model": model, "choices": [{"message": messages[1] | {"source": "generate"}, "stop_reason": stop}],
            "completion": one["answer"],
        },
        "scores": scores,
        "metadata": {"aligned": one["aligned"], "coherent": one["coherent"]},
        "store": {}, "events": [], "model_usage": {}, "attachments": {},
    }  # fmt: skip


def identity(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:22]


def mean(scores: list[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None
