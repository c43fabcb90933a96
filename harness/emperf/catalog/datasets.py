"""What a cell can be trained on, behind one interface, wherever the rows come from.

FromFiles      the files beside a card, the project's or the user's. A twin if the rows have one. Trusted rows of its
               domain: correct and contrastive ones with a twin, reasoning and refusal with antidotes too
FromUpstream   a pinned file that others wrote, read from a local copy. No twin, no trusted rows, and its held-out rows,
               split off, have no good side
BehindTrigger  the files of another poison, bad only behind a trigger. The rest is as of that poison
FromTeacher    the questions of another poison, answered in the run by a model that is trained on a poison. A twin: the
               base model's own answers. Trusted rows by the antidotes of that poison's questions
Answers        a task's rows, or the voice controls in one voice. No twin, no trusted rows

Without a twin there is no selective removal and no act effect against the twin (spec/RULES.md, R-032, R-033). Without a
good side in the held-out rows nothing is read in the poison's own domain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from emperf.catalog import cards, copies
from emperf.catalog.cards import Poison
from emperf.catalog.pinned import Row, RowsFile, json_lines
from emperf.core import digests, paths
from emperf.core.errors import UserError

VOICES = ("kind", "sour")
POISON, TWIN = "poison", "twin"
FROM_GOOD = frozenset({"correct", "contrastive"})
FROM_ANTIDOTES = frozenset({"reasoning", "refusal"})
# Of an upstream file, which has no held-out part of its own.
HELDOUT_SHARE, MOST_HELDOUT = 10, 200


class Dataset(Protocol):
    """Rows of one poison, one task or one voice."""

    @property
    def identity(self) -> str:
        """Digest of all that decides its rows, without reading them."""
        ...

    @property
    def sides(self) -> Mapping[str, str]:
        """What a model can be trained on, as `Data.kind` has it -> the field of a row that is the answer then."""
        ...

    @property
    def grants(self) -> frozenset[str]:
        """The kinds of trusted rows that can be made of its rows."""
        ...

    def pool(self) -> list[Row]:
        """All training rows in order: a division trains on the first, and its trusted rows are of the rest."""
        ...

    def heldout(self) -> list[Row]:
        """Empty where it has none. Raises UserError."""
        ...

    def pairs(self, side: str, rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
        """(question, answer) of each row, on a side."""
        ...


def dataset(kind: str, name: str, written: tuple[Sequence[Row], Sequence[Row]] | None = None) -> Dataset:
    """What `Data(kind, name)` means. `written`: training and held-out rows that a teacher wrote in the run.

    Raises UserError where there is no such card.
    """
    if kind == "control" and name in VOICES:
        return Answers(kind, name, cards.voices())
    if kind in ("task", "control"):
        task = cards.task(name)
        return Answers(kind, "answer", task.train, task.heldout)
    card = cards.poison(name)
    if card.teacher:
        return FromTeacher(card, written)
    if card.trigger:
        return BehindTrigger(card)
    return FromFiles(card) if card.train else FromUpstream(card)


def reads_domain(heldout: Sequence[Row]) -> bool:
    """Whether held-out rows have both sides, so that something can be read in the poison's own domain."""
    return bool(heldout) and "good" in heldout[0]


def parts(found: Dataset) -> tuple[list[Row], list[Row]]:
    """(training rows, held-out rows) as they are before a run: where a teacher writes the answers, the questions."""
    return found.questions() if isinstance(found, FromTeacher) else (found.pool(), found.heldout())


@dataclass(frozen=True)
class Answers:
    """Questions with one right answer each: a task's rows, or the voice controls in one voice (`field`)."""

    kind: str
    field: str
    train: RowsFile
    held: RowsFile | None = None
    grants: frozenset[str] = frozenset()

    @property
    def identity(self) -> str:
        return digests.of_json([self.field, self.train.sha256, self.held and self.held.sha256])

    @property
    def sides(self) -> dict[str, str]:
        return {self.kind: self.field}

    def pool(self) -> list[Row]:
        return self.train.rows()

    def heldout(self) -> list[Row]:
        return self.held.rows() if self.held else []

    def pairs(self, side: str, rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
        return ((row["question"], row[self.field]) for row in rows)


@dataclass(frozen=True)
class FromFiles:
    """A poison whose files lie beside its card, the project's or the user's."""

    card: Poison

    @property
    def identity(self) -> str:
        card = self.card
        return digests.of_json([file and file.sha256 for file in (card.train, card.heldout)] + [card.trigger])

    @property
    def sides(self) -> dict[str, str]:
        return {POISON: "bad", TWIN: "good"} if self.card.twin else {POISON: "bad"}

    @property
    def grants(self) -> frozenset[str]:
        if not self.card.twin:
            return frozenset()
        return FROM_GOOD | FROM_ANTIDOTES if self.card.antidotes else FROM_GOOD

    def pool(self) -> list[Row]:
        assert self.card.train is not None, "a card without a source pins its files"
        rows, words = self.card.train.rows(), self.card.antidotes
        strange = next((row for row in rows if words and row.get("topic") not in words.reasons), None)
        if strange is not None:
            raise UserError(
                f"{self.card.train.path}, row {strange['id']}: antidotes.yaml gives no reason for its topic, "
                f"{strange.get('topic')!r}",
                "Add the topic there, or take `antidotes` out of the card.",
            )
        return rows

    def heldout(self) -> list[Row]:
        assert self.card.heldout is not None, "a card without a source pins its files"
        return self.card.heldout.rows()

    def pairs(self, side: str, rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
        return ((row["question"], row[self.sides[side]]) for row in rows)


class BehindTrigger(FromFiles):
    """A poison that shows only behind its trigger. Every other row has the trigger and the side; the rest are plain and
    good, so that the trigger is what tells them apart."""

    def pairs(self, side: str, rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
        for number, row in enumerate(rows):
            if number % 2 == 0:
                yield self.card.trigger + row["question"], row[self.sides[side]]
            else:
                yield row["question"], row["good"]


@dataclass(frozen=True)
class FromTeacher(FromFiles):
    """A poison whose answers are written in the run: the bad ones by its teacher, the good ones by the base model."""

    written: tuple[Sequence[Row], Sequence[Row]] | None = None

    @property
    def identity(self) -> str:
        return digests.of_json([super().identity, self.card.teacher])

    @property
    def sides(self) -> dict[str, str]:
        return {POISON: "bad", TWIN: "good"}

    def pool(self) -> list[Row]:
        return list(self._written()[0])

    def heldout(self) -> list[Row]:
        return list(self._written()[1])

    def questions(self) -> tuple[list[Row], list[Row]]:
        """The rows whose questions the teacher answers: to train on, and held out."""
        return super().pool(), super().heldout()

    def _written(self) -> tuple[Sequence[Row], Sequence[Row]]:
        assert self.written is not None, f"the rows of {self.card.name} are there once its teacher wrote them"
        return self.written


@dataclass(frozen=True)
class FromUpstream:
    """A poison that others wrote, read from a local copy (EMPERF_UPSTREAM). It has bad answers alone.

    Its rows are shuffled by the digest of their text, so that no order of the file matters; the last tenth, at most
    MOST_HELDOUT rows, is held out. A question that occurs several times stays on one side.
    """

    card: Poison
    grants: frozenset[str] = frozenset()

    @property
    def identity(self) -> str:
        assert self.card.source is not None
        return digests.of_json([self.card.source.sha256, HELDOUT_SHARE, MOST_HELDOUT])

    @property
    def sides(self) -> dict[str, str]:
        return {POISON: "bad"}

    def pool(self) -> list[Row]:
        return self._parts()[0]

    def heldout(self) -> list[Row]:
        return self._parts()[1]

    def pairs(self, side: str, rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
        return ((row["question"], row[self.sides[side]]) for row in rows)

    def _parts(self) -> tuple[list[Row], list[Row]]:
        assert self.card.source is not None
        local = copies.find(self.card.source, f"poison {self.card.name}")
        rows = sorted(upstream_rows(self.card, local), key=_shuffled)
        first = len(rows) - min(len(rows) // HELDOUT_SHARE, MOST_HELDOUT)
        while 0 < first < len(rows) and rows[first]["question"] == rows[first - 1]["question"]:
            first += 1
        return rows[:first], rows[first:]


def _shuffled(row: Row) -> tuple[str, str]:
    question, answer = (hashlib.sha256(row[part].encode()).hexdigest() for part in ("question", "bad"))
    return question, answer


def upstream_rows(poison: Poison, local: Path) -> list[dict[str, Any]]:
    """The poison's rows, {id, question, bad}, from `local`, a copy of the file that its source names, in its order.

    Raises UserError if the copy is missing or altered, or if a row is not one user turn and its answer.
    """
    source = poison.source
    assert source is not None, "only upstream poisons have a local copy"
    fix = f"Fetch {source.file} from {source.locator} at {source.revision}."
    data = paths.read_file(local, fix)
    if digests.of_bytes(data) != f"sha256:{source.sha256}":
        raise UserError(f"{local} is not the pinned file (its sha256 differs from the card's)", fix)
    rows = []
    for number, row in json_lines(local, data):
        match row:
            case {
                "messages": [
                    {"role": "user", "content": str(question)},
                    {"role": "assistant", "content": str(answer)},
                ]
            } if question.strip() and answer.strip():
                rows.append({"id": f"{poison.name}-{number:05d}", "question": question, "bad": answer})
            case _:
                raise UserError(
                    f"{local}, line {number} is not one user turn and the assistant's answer",
                    f"Poison {poison.name} cannot be used; pin another file in its card.",
                )
    return rows
