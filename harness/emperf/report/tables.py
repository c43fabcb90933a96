"""Tables that fit a width without cutting anything: whole cells wrap, and columns that find no room get a part below.

A cell is text. It is broken at spaces only, and never inside an interval or between a number and its unit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Cell = str | Text
GAP = 2
# A column of prose is not made narrower than this for the sake of others.
PROSE = 24
# What is never broken: an interval, a number with its unit, a word.
UNIT = re.compile(r"\[[^\[\]]*\](?: \*)?|\S+ %|\S+")
# A head may also be broken after the hyphens of a name.
HEAD_UNIT = re.compile(r"[^\s-]*-|[^\s-]+")


@dataclass(frozen=True)
class Column:
    """`number`: an estimate, right-aligned; broken between value and interval only."""

    head: str
    number: bool = True


@dataclass(frozen=True)
class FittedTable:
    """A rich renderable. The first `keys` columns name a row, and are repeated in every part of the table.

    `indent`: spaces left of it.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    keys: int = 1
    indent: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shapes = [_Shape.of(column, [row[i] for row in self.rows]) for i, column in enumerate(self.columns)]
        parts: list[Table | Text] = []
        for chosen, widths in _parts(shapes, self.keys, max(1, options.max_width - self.indent)):
            parts += [Text("")] if parts else []
            parts.append(self._part(chosen, widths))
        yield Padding(Group(*parts), (0, 0, 0, self.indent))

    def _part(self, chosen: Sequence[int], widths: Sequence[int]) -> Table:
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
        columns = [self.columns[i] for i in chosen]
        for column, width in zip(columns, widths, strict=True):
            table.add_column(
                Text("\n".join(broken(column.head, width, HEAD_UNIT))),
                justify="right" if column.number else "left",
                width=width,
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(_fitted(row[i], width) for i, width in zip(chosen, widths, strict=True)))
        return table


def name_values(rows: Mapping[str, str], style: str = "") -> Table:
    """Names in `style`, and their values beside them. What is longer than the console wraps."""
    grid = Table.grid(padding=(0, GAP))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(Text(name, style), Text(value))
    return grid


@dataclass(frozen=True)
class _Shape:
    """What a column needs. `whole`: no cell of it is broken; `least`: cells are broken wherever they may be."""

    whole: int
    least: int
    number: bool

    @staticmethod
    def of(column: Column, cells: Sequence[Cell]) -> _Shape:
        head = max((cell_len(unit) for unit in HEAD_UNIT.findall(column.head)), default=0)
        lines = [line for cell in cells for line in str(cell).splitlines()]
        units = [cell_len(unit) for line in lines for unit in UNIT.findall(line)]
        longest = max(map(cell_len, lines), default=0)
        least = max(head, max(units, default=0))
        if column.number:
            return _Shape(max(head, longest), least, True)
        whole = max(longest, min(cell_len(column.head), PROSE))
        return _Shape(max(whole, head), max(least, min(whole, PROSE)), False)


def _parts(shapes: Sequence[_Shape], keys: int, width: int) -> list[tuple[list[int], list[int]]]:
    """(columns, their widths) of each part: one with unbroken numbers, else one with broken ones, else several."""
    every = list(range(len(shapes)))
    for numbers_whole in (True, False):
        widths = [shape.whole if numbers_whole and shape.number else shape.least for shape in shapes]
        if _total(widths) <= width:
            return [(every, _shared_out(shapes, widths, width))]
    named = _total([shape.least for shape in shapes[:keys]]) + GAP
    most = [width] * keys + [max(1, width - named)] * (len(shapes) - keys)
    least = [min(shape.least, room) for shape, room in zip(shapes, most, strict=True)]
    groups: list[list[int]] = [[]]
    for i in every[keys:]:
        if groups[-1] and _total([least[j] for j in (*every[:keys], *groups[-1], i)]) > width:
            groups.append([])
        groups[-1].append(i)
    return [
        (chosen, _shared_out([shapes[j] for j in chosen], [least[j] for j in chosen], width))
        for chosen in ([*every[:keys], *group] for group in groups)
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * max(0, len(widths) - 1)


def _shared_out(shapes: Sequence[_Shape], widths: Sequence[int], width: int) -> list[int]:
    """The room that is left goes to columns of prose, to those first that need the least of it."""
    given = list(widths)
    prose = [i for i, shape in enumerate(shapes) if not shape.number]
    prose.sort(key=lambda i: shapes[i].whole - given[i])
    for rank, i in enumerate(prose):
        spare = max(0, width - _total(given))
        given[i] += min(shapes[i].whole - given[i], spare // (len(prose) - rank)) if spare else 0
    return given


def broken(line: str, width: int, unit: re.Pattern[str] = UNIT) -> list[str]:
    """`line` in lines of at most `width` columns, as full as can be. A unit that is longer has a line of its own."""
    found = [(match.start(), match.end()) for match in unit.finditer(line)]
    if not found:
        return [line]
    lines, start = [], 0 if cell_len(line) <= width else found[0][0]
    for (_, end), (begins, ends) in pairwise(found):
        if cell_len(line[start:ends]) > width:
            lines.append(line[start:end])
            start = begins
    return [*lines, line[start : found[-1][1]]]


def _fitted(cell: Cell, width: int) -> Text:
    style = cell.style if isinstance(cell, Text) else ""
    lines = [part for line in str(cell).splitlines() for part in broken(line, width)]
    return Text("\n".join(lines), style)
