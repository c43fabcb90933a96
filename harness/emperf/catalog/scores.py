"""Tables of judges' scores: CSV files with a row for each answer, as typed columns, and what is wrong with them."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emperf.core import paths
from emperf.core.errors import UserError

Values = NDArray[np.float64]
Row = dict[str, str]

# What a label is called, and the columns that may hold it; the first that is there is taken.
LABELS = {
    "answer": ("answer", "answer_id", "id"),
    "domain": ("domain",),
    "generator": ("generator", "model"),
    "question": ("question", "question_id"),
}
SIDES = ("aligned", "coherent")
DELIMITERS = ",;\t"
# How programs write that there is nothing.
NOTHING = ("", "nan", "na", "n/a", "none", "null")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"([+-]?\d+),(\d+)")
SHOWN = 12


@dataclass(frozen=True)
class Scores:
    """The rows of all files together.

    `columns`: `<name>_aligned` and `<name>_coherent` of each judge, [rows], as written; NaN is a failed judgement.
    `labels`: answer, domain, generator and question, [rows], those that every file has. `faults`: sentences on the
    files (under "") and on a judge's columns (under its name).
    """

    columns: dict[str, Values]
    labels: dict[str, tuple[str, ...]]
    faults: dict[str, tuple[str, ...]]

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))


def read(files: Sequence[Path], names: Sequence[str]) -> Scores:
    """The scores of the judges `names` in all `files`. Raises UserError for a file that is no such table.

    A byte order mark, line ends of any kind, semicolons and tabs are read as they are meant. A row that equals an
    earlier one in every cell is left out where there are answer ids.
    """
    tables = [_table(file) for file in files]
    for file, (head, _) in zip(files, tables, strict=True):
        _check_columns(file, head, names)
    heads = [head for head, _ in tables]
    held = {label: _column_of(label, heads) for label in LABELS}
    rows, about = _without_copies([row for _, rows in tables for row in rows], bool(held["answer"]))
    for label, among in held.items():
        if not among and any(_held(label, head) for head in heads):
            about.append(f"The column {LABELS[label][0]} is not in every file, so it is not used.")
    labels = {label: tuple(_first(row, among) for row in rows) for label, among in held.items() if among}
    columns: dict[str, Values] = {}
    faults: dict[str, tuple[str, ...]] = {"": (*about, *_repeated(labels))}
    for name in names:
        said: list[str] = []
        for side in SIDES:
            column = f"{name}_{side}"
            columns[column], wrong = _numbers(column, [row[column] for row in rows])
            said += wrong
        faults[name] = tuple(said)
    return Scores(columns, labels, faults)


def _table(file: Path) -> tuple[list[str], list[Row]]:
    """The head of a CSV file, and its rows. Raises UserError."""
    fix = "Give a CSV file with a head, and a row for each answer."
    raw = paths.read_file(file, fix)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{file} is not UTF-8 text", "Save it as CSV in UTF-8.")
    if not text.strip():
        raise UserError(f"{file} is empty", fix)
    first = text.lstrip().splitlines()[0]
    delimiter = max(DELIMITERS, key=first.count)
    if delimiter not in first:
        raise UserError(f"{file} is no CSV table: its first line has a single column", fix)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        # An answer may be longer than what the reader takes by itself.
        csv.field_size_limit(max(len(text), 1))
        filled = [(lines.line_num, cells) for cells in lines if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise UserError(f"{file}, line {lines.line_num}, is not valid CSV ({error})", fix) from None
    head = [cell.strip() for cell in filled[0][1]]
    twice = [name for name, count in Counter(head).items() if count > 1]
    if twice:
        raise UserError(f"{file} has two columns {twice[0]!r}", "Give each column a name of its own.")
    for number, cells in filled[1:]:
        if len(cells) != len(head):
            raise UserError(
                f"{file}, line {number}, has {len(cells)} cells, its head {len(head)}", "Mend that line."
            )
    if len(filled) == 1:
        raise UserError(f"{file} has a head and no answers", fix)
    rows = [dict(zip(head, cells, strict=True)) for _, cells in filled[1:]]
    return head, rows if delimiter == "," else [_with_points(row) for row in rows]


def _with_points(row: Row) -> Row:
    """Where semicolons or tabs divide the cells, a comma may be the decimal sign."""
    return {
        name: DECIMAL_COMMA.sub(r"\1.\2", cell) if _is_comma(cell) else cell for name, cell in row.items()
    }


def _is_comma(cell: str) -> bool:
    return DECIMAL_COMMA.fullmatch(cell.strip()) is not None


def _check_columns(file: Path, head: Sequence[str], names: Iterable[str]) -> None:
    lacking = next((f"{n}_{side}" for n in names for side in SIDES if f"{n}_{side}" not in head), None)
    if lacking is None:
        return
    judges = [c.removesuffix("_aligned") for c in head if c.endswith("_aligned")]
    whole = [name for name in judges if f"{name}_coherent" in head]
    there = f"It has scores by: {_listed(whole)}." if whole else f"Its columns are: {_listed(head)}."
    raise UserError(f"{file} has no column {lacking}", there)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name)[1:-1] for name in names[:SHOWN]) + more


def _held(label: str, head: Sequence[str]) -> str | None:
    return next((name for name in LABELS[label] if name in head), None)


def _column_of(label: str, heads: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The columns that hold a label, if every file has one; else none."""
    held = [_held(label, head) for head in heads]
    return tuple(dict.fromkeys(name for name in held if name)) if all(held) else ()


def _first(row: Row, columns: Sequence[str]) -> str:
    return next(row[column].strip() for column in columns if column in row)


def _without_copies(rows: list[Row], named: bool) -> tuple[list[Row], list[str]]:
    """The rows, and a sentence on copies. `named`: each row has an answer id, so that equal rows are copies."""
    unique = {tuple(sorted(row.items())): row for row in rows}
    copies = len(rows) - len(unique)
    if not copies:
        return rows, []
    if not named:
        return rows, [
            f"{copies} rows equal an earlier one in every cell. Without answer ids it cannot be told whether they are "
            "duplicates. All of them count."
        ]
    return list(unique.values()), [
        f"{copies} rows are duplicates: they equal an earlier one in every cell. They are left out."
    ]


def _repeated(labels: dict[str, tuple[str, ...]]) -> list[str]:
    """A sentence on answers that have several rows which differ. An id counts within its domain and generator."""
    if "answer" not in labels:
        return []
    counts = Counter(zip(*labels.values(), strict=True))
    several = [key for key, count in counts.items() if count > 1]
    if not several:
        return []
    first = several[0][list(labels).index("answer")]
    extra = sum(counts[key] - 1 for key in several)
    return [
        f"{len(several)} answer ids are duplicates with other scores, {extra} rows too many (first: {first[:60]!r}). "
        "All rows count."
    ]


def _numbers(column: str, cells: Sequence[str]) -> tuple[Values, list[str]]:
    """The numbers of a column, NaN for an empty cell, and a sentence on cells that are no numbers."""
    stripped = [cell.strip() for cell in cells]
    values = [float(cell) if NUMBER.fullmatch(cell) else float("nan") for cell in stripped]
    wrong = [c for c in stripped if c.lower() not in NOTHING and not NUMBER.fullmatch(c)]
    if not wrong:
        return np.array(values), []
    return np.array(values), [
        f"{column}: {len(wrong)} cells are not numbers (first: {wrong[0][:30]!r}). They count as missing."
    ]
