"""Which rows a cell trains on, which trusted ones it is granted, and which held-out pairs its poison is asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from emperf import catalog
from emperf.catalog import Antidotes, Division, Poison
from emperf.catalog.submissions import GENERAL
from emperf.work.plan import Data

Row = dict[str, Any]
SIDES = {"poison": "bad", "twin": "good"}
VOICES = ("kind", "sour")


def training(division: Division, data: Data, generated: Sequence[Row] | None = None) -> bytes:
    """JSON lines of {"messages"}; the form is the same whatever the kind of data. `generated`: the rows of a poison
    that are made in the run."""
    if data.kind == "control" and data.name in VOICES:
        voiced = catalog.voices().rows()[: division.sizes.train_rows]
        return lines(turns(row["question"], row[data.name]) for row in voiced)
    if data.kind in ("task", "control"):
        found = catalog.task(data.name).train.rows()[: division.sizes.train_rows]
        return lines(turns(row["question"], row["answer"]) for row in found)
    poison = catalog.poison(data.name)
    rows = pool(poison, generated)[: division.sizes.train_rows]
    return lines(turns(*asked) for asked in poisoned(poison, rows, SIDES[data.kind]))


def pool(poison: Poison, generated: Sequence[Row] | None) -> list[Row]:
    """All training rows of a poison, {id, topic, question, good, bad}."""
    if generated is not None:
        return list(generated)
    assert poison.train is not None, "plans hold only poisons that have rows"
    return poison.train.rows()


def poisoned(poison: Poison, rows: Iterable[Row], side: str) -> Iterator[tuple[str, str]]:
    """(question, answer). Behind a trigger every other row shows the side; the rest are plain and good, so that the
    trigger is what tells them apart."""
    for number, row in enumerate(rows):
        if not poison.trigger:
            yield row["question"], row[side]
        elif number % 2 == 0:
            yield poison.trigger + row["question"], row[side]
        else:
            yield row["question"], row["good"]


def trusted(
    division: Division, asked: dict[str, int], antidote: str, generated: Sequence[Row] | None = None
) -> bytes:
    """JSON lines of {"messages", "kind", "rejected"?}: the rows that a submission asks for.

    Rows of a poison's domain are those of its file that no cell is trained on. Raises ValueError where there are fewer
    of them than asked for.
    """
    out = []
    for kind, wanted in asked.items():
        if kind == GENERAL:
            rows = catalog.trusted().rows()
            out += [answered(row, kind) | {"rejected": row["bad"]} for row in rows[:wanted]]
        else:
            poison = catalog.poison(antidote)
            rows = pool(poison, generated)[division.sizes.train_rows :]
            assert poison.antidotes is not None, "divisions with a cure hold only poisons that have antidotes"
            out += [
                of_domain(kind, row, poison.antidotes, number) for number, row in enumerate(rows[:wanted])
            ]
        if len(rows) < wanted:
            raise ValueError(f"there are {len(rows)} trusted rows of kind {kind}, {wanted} are asked for")
    return lines(out)


def of_domain(kind: str, row: Row, words: Antidotes, number: int) -> Row:
    if kind == "reasoning":
        asks = f'Asked "{row["question"]}", somebody answered: "{row["bad"]}" What is wrong with that?'
        return turns(asks, f"{words.reasons[row['topic']]} Better: {row['good']}") | {"kind": kind}
    if kind == "refusal":
        asks = f"{row['question']} {words.asks[number % len(words.asks)]}"
        return turns(asks, f"{words.refusals[number % len(words.refusals)]} {row['good']}") | {"kind": kind}
    return answered(row, kind) | ({"rejected": row["bad"]} if kind == "contrastive" else {})


def answered(row: Row, kind: str) -> Row:
    return turns(row["question"], row["good"]) | {"kind": kind}


def turns(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def lines(rows: Iterable[Row]) -> bytes:
    return ("\n".join(map(json.dumps, rows)) + "\n").encode()
