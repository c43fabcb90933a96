"""Tables that fit: every cell is there, whole, at any width."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from emperf.report.tables import UNIT, Column, FittedTable, broken

COLUMNS = [Column("method", number=False), *(Column(f"number {i} (machinery only)") for i in range(6))]
ROWS = [
    [
        f"preventative-steering (random-{row})",
        *(f"-0.{row}{i}1 [-0.{row}{i}9, +0.{row}{i}5]" for i in range(6)),
    ]
    for row in range(3)
]


def printed(table: FittedTable, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [48, 60, 80, 100, 132, 250])
def test_nothing_is_cut_at_any_width(width: int) -> None:
    lines = printed(FittedTable(COLUMNS, ROWS), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "\u2026" not in text
    for row in ROWS:
        for cell in row:
            assert [unit for unit in UNIT.findall(cell) if unit not in text] == []


def test_what_fits_stays_on_one_line() -> None:
    assert len(printed(FittedTable(COLUMNS[:3], [row[:3] for row in ROWS]), 100)) == 2 + len(ROWS)


def test_parts_repeat_the_names() -> None:
    lines = printed(FittedTable(COLUMNS, ROWS), 80)
    parts = [line for line in lines if line.strip().startswith("method")]
    assert len(parts) > 1
    assert sum("(random-1)" in line for line in lines) == len(parts)


def test_a_word_longer_than_the_console_is_folded_and_names_stay_whole() -> None:
    url = "https://example.org/" + "x" * 90
    lines = printed(
        FittedTable([Column("name", number=False), Column("place", number=False)], [["a-name", url]]), 80
    )
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[0] == "a-name"
    assert re.sub(r"\s|a-name|name|place", "", "".join(lines)) == url


@pytest.mark.parametrize(
    ("line", "width", "lines"),
    [
        ("+0.100 [-0.200, +0.300]", 23, ["+0.100 [-0.200, +0.300]"]),
        ("+0.100 [-0.200, +0.300]", 22, ["+0.100", "[-0.200, +0.300]"]),
        ("80 % [79, 81]", 8, ["80 %", "[79, 81]"]),
        ("0.30 [0.21, 0.39] *", 15, ["0.30", "[0.21, 0.39] *"]),
        ("  in its context", 20, ["  in its context"]),
        ("one two three", 7, ["one two", "three"]),
        ("", 5, [""]),
    ],
)
def test_cells_break_between_their_parts(line: str, width: int, lines: list[str]) -> None:
    assert broken(line, width) == lines
