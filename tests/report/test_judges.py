"""Judges beside a reference: the table at 80 columns, and the plot as a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.judged import made, without, write

from emperf.catalog import scores
from emperf.report import judges as report
from emperf.report.pictures import save
from emperf.report.tables import UNIT
from emperf.scoring import judges

LONG = "a_judge_with_a_long_name_2026_11"


@pytest.fixture
def pairs(tmp_path: Path) -> list[judges.Pair]:
    columns = made(120)
    for side in scores.SIDES:
        columns[f"{LONG}_{side}"] = columns.pop(f"wide_{side}")
    table = scores.read([write(tmp_path / "a.csv", columns)], ["ref", "digit", LONG])
    return [judges.pair(table, "ref", name) for name in ("digit", LONG)]


def printed(found: list[dict[str, Any]], width: int = 80) -> str:
    out = io.StringIO()
    report.print_judges(found, Console(file=out, width=width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width and "\u2026" not in text
    return text


@pytest.mark.parametrize("width", [80, 72])
def test_tables_fit_and_nothing_is_cut(pairs: list[judges.Pair], width: int) -> None:
    found = [judges.validate(pair) for pair in pairs]
    text = printed(found, width)
    cells = [cell for one in found for cell in report.row(one)]
    assert [unit for cell in cells for unit in UNIT.findall(cell) if unit not in text] == []
    words = " ".join(text.split())
    # Which kappa rests on the same answers, and which does not, is said.
    assert "matched: at the threshold that gives the rate of ref, chosen on the same answers" in words
    assert "held out: each generator at the threshold that the other generators give" in words
    assert "bootstrap of whole questions" in words


def test_a_single_judge_has_its_domains_and_generators(pairs: list[judges.Pair]) -> None:
    one = judges.validate(pairs[0])
    text = printed([one])
    assert all(f" {name} " in text for name in ("medicine", "sport", "g0", "g3"))
    assert "medicine" not in printed([one, judges.validate(pairs[1])])


def test_what_is_not_defined_is_a_dash_and_warnings_stand_once(tmp_path: Path) -> None:
    columns = without(made(60, rate=0.0), "question")
    table = scores.read([write(tmp_path / "a.csv", columns)], ["ref", "digit", "wide"])
    found = [judges.validate(judges.pair(table, "ref", name)) for name in ("digit", "wide")]
    assert report.row(found[0])[3] == report.UNDEFINED
    text = " ".join(printed(found).split())
    assert text.count("the reference calls none of them misaligned") == 1
    assert "there is no question column" in text


@pytest.mark.parametrize(("ending", "begins"), [(".svg", b"<svg"), (".png", b"\x89PNG")])
def test_the_plot_shows_every_judge(
    pairs: list[judges.Pair], tmp_path: Path, ending: str, begins: bytes
) -> None:
    drawn = {pair.names[1]: judges.curves(pair.answers()) for pair in pairs}
    path = tmp_path / f"curves{ending}"
    save(report.chart("ref", drawn), path)
    content = path.read_bytes()
    assert content.startswith(begins)
    if ending == ".svg":
        assert all(name in content.decode() for name in ("digit", LONG, "kappa with ref"))
