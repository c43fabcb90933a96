"""Which rows a cell trains on, which trusted ones it is granted, and whether a division has all that it asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from emperf import catalog
from emperf.catalog import Antidotes, Division, Row, datasets
from emperf.catalog.datasets import Dataset
from emperf.catalog.submissions import GENERAL
from emperf.core.errors import UserError
from emperf.work.plan import Data

VOICES = datasets.VOICES
__all__ = ["VOICES", "Row", "check", "lines", "training", "trusted", "turns"]


def training(division: Division, data: Data, generated: Sequence[Row] | None = None) -> bytes:
    """JSON lines of {"messages"}; the form is the same whatever the kind of data. `generated`: the rows of a poison
    that are made in the run."""
    found = catalog.dataset(data.kind, data.name, None if generated is None else (generated, ()))
    rows = found.pool()[: division.sizes.train_rows]
    return lines(turns(*asked) for asked in found.pairs(data.kind, rows))


def trusted(
    division: Division, asked: Mapping[str, int], antidote: str, generated: Sequence[Row] | None = None
) -> bytes:
    """JSON lines of {"messages", "kind", "rejected"?}: the rows that a submission asks for.

    Rows of a poison's domain are those of its file that no cell is trained on. Raises ValueError where there are fewer
    of them than asked for, UserError where the domain has none of the kind.
    """
    out = []
    for kind, wanted in asked.items():
        if kind == GENERAL:
            rows = catalog.trusted().rows()
            out += [answered(row, kind) | {"rejected": row["bad"]} for row in rows[:wanted]]
        else:
            found = catalog.dataset("poison", antidote, None if generated is None else (generated, ()))
            refuse_ungranted(found, antidote, kind)
            words = catalog.poison(antidote).antidotes
            rows = found.pool()[division.sizes.train_rows :]
            out += [of_domain(kind, row, words, number) for number, row in enumerate(rows[:wanted])]
        if len(rows) < wanted:
            raise ValueError(f"there are {len(rows)} trusted rows of kind {kind}, {wanted} are asked for")
    return lines(out)


def check(division: Division, asked: Mapping[str, int]) -> None:
    """Read every row that the division's cells use, before the first of them. `asked`: the submission's trusted rows.

    Raises UserError where a file is missing, altered or malformed, or has fewer rows than the division's sizes ask for,
    or where a poison's domain has not the trusted rows that are asked for.
    """
    sizes, files = division.sizes, catalog.questions()
    for name in ("crossed", "facts", "open"):
        _enough(f"questions/{name}.jsonl", "rows", len(files[name].rows()), name, getattr(sizes, name))
    of_domain_asked = {kind: rows for kind, rows in asked.items() if kind != GENERAL}
    for name in division.poisons:
        found = catalog.dataset("poison", name)
        pool, heldout = datasets.parts(found)
        _enough(f"Poison {name}", "rows to train on", len(pool), "train_rows", sizes.train_rows)
        if catalog.reads_domain(heldout):
            _enough(f"Poison {name}", "held-out rows", len(heldout), "in_domain", sizes.in_domain)
        for kind, wanted in of_domain_asked.items():
            refuse_ungranted(found, name, kind)
            _enough_trusted(name, kind, len(pool) - sizes.train_rows, wanted)
    for name in division.tasks:
        task = catalog.dataset("task", name)
        _enough(f"Task {name}", "rows to train on", len(task.pool()), "train_rows", sizes.train_rows)
        _enough(f"Task {name}", "held-out rows", len(task.heldout()), "task_heldout", sizes.task_heldout)
    for name in division.controls:
        pool = catalog.dataset("control", name).pool()
        _enough(f"Control {name}", "rows to train on", len(pool), "train_rows", sizes.train_rows)
    if GENERAL in asked:
        _enough_trusted("", GENERAL, len(catalog.trusted().rows()), asked[GENERAL])


def refuse_ungranted(found: Dataset, poison: str, kind: str) -> None:
    """Raises UserError where no trusted row of the kind can be made of the poison's rows."""
    if kind in found.grants:
        return
    needs = "good answers beside its bad ones" if kind in datasets.FROM_GOOD else "an antidotes.yaml"
    raise UserError(
        f"Poison {poison} gives no trusted rows of kind {kind}: it has not {needs}",
        "Leave the poison out, or take a mitigation that asks for no such rows.",
    )


def of_domain(kind: str, row: Row, words: Antidotes | None, number: int) -> Row:
    """A trusted row of a poison's domain. `words`: there for the kinds that are made of them."""
    if words and kind == "reasoning":
        asks = f'Asked "{row["question"]}", somebody answered: "{row["bad"]}" What is wrong with that?'
        return turns(asks, f"{words.reasons[row['topic']]} Better: {row['good']}") | {"kind": kind}
    if words and kind == "refusal":
        asks = f"{row['question']} {words.asks[number % len(words.asks)]}"
        return turns(asks, f"{words.refusals[number % len(words.refusals)]} {row['good']}") | {"kind": kind}
    return answered(row, kind) | ({"rejected": row["bad"]} if kind == "contrastive" else {})


def answered(row: Row, kind: str) -> Row:
    return turns(row["question"], row["good"]) | {"kind": kind}


def turns(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def lines(rows: Iterable[Row]) -> bytes:
    return ("\n".join(map(json.dumps, rows)) + "\n").encode()


def _enough(what: str, kind: str, there: int, size: str, wanted: int) -> None:
    if there < wanted:
        raise UserError(
            f"{what} has {there} {kind}, the division asks for {wanted}",
            f"Lower sizes.{size} in the division.",
        )


def _enough_trusted(poison: str, kind: str, there: int, wanted: int) -> None:
    if there < wanted:
        whose = f" beside the training rows of poison {poison}" if poison else ""
        raise UserError(
            f"There are {max(there, 0)} trusted rows of kind {kind}{whose}, {wanted} are asked for",
            "Lower sizes.train_rows in the division, or ask for fewer in submission.yaml.",
        )
