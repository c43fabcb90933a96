"""The comparison's table and plot: what is measured is shown, what is not is a dash, failures are named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.synthetic import DIGEST, Run

from emperf import catalog
from emperf.report.comparison import HEADS, markdown, print_comparison
from emperf.report.pareto import mark_front, place

PROXY = "A proxy."


def entry(name: str, scenario: str = "prevent", **changes: Any) -> dict[str, Any]:
    made = Run().summary()
    return {
        "name": name, "scenario": scenario, "parameters": {}, "digest": DIGEST, "failures": [],
        "poisons": made["poisons"][0], "tasks": made["tasks"][0], "overhead": made["overhead"], **changes,
    }  # fmt: skip


@pytest.fixture
def whole() -> dict[str, Any]:
    failed = {
        "failures": [{"kind": "diverged", "detail": "x", "cell": "y"}],
        "poisons": None,
        "tasks": None,
    }
    run = Run(submission="none").summary()
    return {
        "schema": 1, "emperf": "0.1.0", "sources": DIGEST, "parallel": 1,
        "run_id": "compare-nano-1", "created": "2026-11-21T10:00:00Z",
        "division": {"name": "nano", "digest": DIGEST, "proxy": PROXY}, "model": "m", "poisons": ["bad-medical"],
        "tasks": ["record-line"], "seeds": [0], "cells": {"done": 5, "planned": 9}, "baseline": run["poisons"][0],
        "rows": [entry("kl"), entry("mender", "cure"), entry("broken", **failed)],
        "runtime": {"runtime": "process"}, "machine": {"processor": "P", "cores": 2},
    }  # fmt: skip


def test_the_table_keeps_its_schema_and_names_what_it_holds(whole: dict[str, Any]) -> None:
    catalog.check("comparison", whole)
    text = markdown(whole)
    assert "5 of 9 planned cells" in text and "bad-medical" in text and "Seeds: 0" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 3 and all(line.count("|") == len(HEADS) + 1 for line in table)


def test_what_the_baselines_curve_does_not_reach_is_marked(whole: dict[str, Any]) -> None:
    assert whole["rows"][0]["poisons"]["matched"]["inside_curve"]
    assert not [line for line in markdown(whole).splitlines() if line.startswith("|") and "†" in line]
    whole["rows"][0]["poisons"]["matched"]["inside_curve"] = False
    assert "†" in next(line for line in markdown(whole).splitlines() if line.startswith("| kl"))


def test_a_failed_method_shows_its_failure_and_no_numbers(whole: dict[str, Any]) -> None:
    line = next(line for line in markdown(whole).splitlines() if line.startswith("| broken"))
    assert "failed: diverged" in line and "%" not in line


def test_cures_come_after_preventions(whole: dict[str, Any]) -> None:
    text = markdown(whole)
    assert text.index("| kl |") < text.index("| mender |") and text.index("| broken |") < text.index(
        "| mender |"
    )


def test_printing_writes_table_and_plot(whole: dict[str, Any], tmp_path: Path) -> None:
    out = io.StringIO()
    print_comparison(whole, Console(file=out, width=160), tmp_path)
    assert "kl" in out.getvalue() and PROXY in out.getvalue()
    assert (tmp_path / "comparison.md").read_text() == markdown(whole)
    drawn = (tmp_path / "pareto.svg").read_text()
    assert ">kl<" in drawn and ">broken<" not in drawn and "EM removed" in drawn


def test_the_front_holds_what_no_other_beats() -> None:
    points: list[dict[str, Any]] = [
        {"name": "best", "removed": 50, "tax": 0},
        {"name": "beaten", "removed": 40, "tax": 10},
        {"name": "dear", "removed": 60, "tax": 30},
        {"name": "twin of best", "removed": 50, "tax": 0},
    ]
    mark_front(points)
    assert [point["name"] for point in points if point["front"]] == ["best", "dear", "twin of best"]


def test_what_is_not_defined_has_no_place(whole: dict[str, Any]) -> None:
    assert place(whole["rows"][0]) is not None and place(whole["rows"][2]) is None
    undefined = dict.fromkeys(("value", "low", "high"))
    row = whole["rows"][0]
    row["tasks"] = row["tasks"] | {"tax": undefined}
    assert place(row) is None
