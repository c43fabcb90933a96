"""`emperf export`: every reading of a run as rows of a table, an item each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emperf.core.files import read_json
from emperf.execute.store import UnitStore
from emperf.experiments import evaluate
from emperf.experiments.about import again

Json = dict[str, Any]
COLUMNS = (
    "scenario", "method", "kind", "dataset", "antidote", "seed", "steps", "set", "item", "act", "voice", "logp",
    "exact", "answer",
)  # fmt: skip


def rows(folder: Path) -> Iterator[Json]:
    """A row for each answer that was read: COLUMNS, None where one does not apply.

    `method` is "base" for the base model; `steps` the checkpoint, None for the trained model; `logp` the mean
    log-probability per token, nats. Raises UserError as `again`.
    """
    if (read_json(folder / "run.json") or {}).get("about", {}).get("kind") == evaluate.KIND:
        yield from of_evaluation(folder)
        return
    _, _, results = again(folder)
    for kind, datasets in results.base().items():
        for name, scores in datasets.items():
            yield from of_model({"method": "base", "kind": kind.removesuffix("s"), "dataset": name}, scores)
    for key, cell in results.cells.items():
        found = results.scores(key)
        if found is not None:
            named = {
                "scenario": cell.scenario, "method": cell.method, "kind": cell.data.kind, "dataset": cell.data.name,
                "antidote": cell.antidote or None, "seed": cell.seed,
            }  # fmt: skip
            yield from of_model(named, found)


def of_evaluation(folder: Path) -> Iterator[Json]:
    """The paired readings of an evaluation. `method`: the model's name; `kind`: its role."""
    facts = evaluate.facts_in(folder)
    units, roles = UnitStore(folder.parents[1]), {one["name"]: one["role"] for one in facts["subjects"]}
    for name, sets in facts["readings"].items():
        readings = {which: evaluate.stored(units, key) for which, key in sets.items()}
        yield from of_model(
            {"method": name, "kind": roles[name], "dataset": facts["poison"]}, {"readings": readings}
        )


def of_model(named: Json, scores: Json) -> Iterator[Json]:
    for item in scores.get("items", []):
        yield row(named, set="task", item=item["id"], exact=item["exact"], answer=item["answer"])
    by_steps = {None: scores.get("readings", {})} | scores.get("checkpoints", {})
    for steps, sets in by_steps.items():
        for name, readings in sets.items():
            for reading in readings:
                for act in ("good", "bad"):
                    for voice, logp in reading[act].items():
                        yield row(
                            named, steps=steps and int(steps), set=name, item=reading["id"],
                            act=act, voice=voice, logp=logp,
                        )  # fmt: skip
    for answer in scores.get("answers", []):
        yield row(named, set="answers", item=answer["id"], answer=answer["answer"])


def row(named: Json, **values: Any) -> Json:
    return dict.fromkeys(COLUMNS) | named | values


def frame(folder: Path) -> Any:
    """The rows of a run's folder as a pandas data frame."""
    import pandas as pd

    return pd.DataFrame(rows(folder), columns=list(COLUMNS))
