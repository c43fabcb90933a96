"""The comparison's table and plot: what is measured is shown, what is not is a dash, failures are named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.synthetic import DIGEST, MACHINE, RUNTIME, Run

from emperf import catalog
from emperf.report.comparison import HEADS, markdown, print_comparison
from emperf.report.numbers import nats, share, times
from emperf.report.pareto import place

PROXY = "A proxy."


def entry(name: str, scenario: str = "prevent", **changes: Any) -> dict[str, Any]:
    made = Run().summary()
    return {
        "name": name, "scenario": scenario, "parameters": {}, "digest": DIGEST, "failures": [],
        "poisons": made["poisons"][0], "tasks": made["tasks"][0], "overhead": made["overhead"],
        "adjusted_p": 0.001, "selective": True, "rank": [1, 2], **changes,
    }  # fmt: skip


@pytest.fixture
def whole() -> dict[str, Any]:
    failed = {
        "failures": [{"kind": "diverged", "detail": "x", "cell": "y"}], "poisons": None, "tasks": None,
        "adjusted_p": None, "selective": None, "rank": None,
    }  # fmt: skip
    run = Run(submission="none").summary()
    plain = entry("plain", rank=[2, 3], selective=False, adjusted_p=1.0)
    plain["poisons"] = Run(effects=unmoved()).summary()["poisons"][0]
    return {
        "schema": 1, "emperf": "0.1.0", "sources": DIGEST, "parallel": 1,
        "run_id": "compare-nano-1", "created": "2026-11-21T10:00:00Z",
        "division": {"name": "nano", "digest": DIGEST, "proxy": PROXY, "shows_em": True},
        "model": "m", "poisons": ["bad-medical"],
        "tasks": ["record-line"], "seeds": [0], "cells": {"done": 5, "planned": 9}, "baseline": run["poisons"][0],
        "rows": [plain, entry("kl"), entry("mender", "cure"), entry("broken", **failed)],
        "runtime": RUNTIME, "machine": MACHINE,
    }  # fmt: skip


def unmoved() -> dict[str, dict[str, float]]:
    """The baseline as its own method."""
    found = Run().effects
    return found | {"mitigated": found["poisoned"], "mitigated_twin": found["twin"]}


def line(whole: dict[str, Any], name: str) -> str:
    return next(line for line in markdown(whole).splitlines() if line.startswith(f"| {name} |"))


def test_the_table_keeps_its_schema_and_names_what_it_holds(whole: dict[str, Any]) -> None:
    catalog.check("comparison", whole)
    text = markdown(whole)
    assert "5 of 9 planned cells" in text and "bad-medical" in text and "Seeds: 0" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4 and all(line.count("|") == len(HEADS) + 1 for line in table)


def test_every_number_of_a_method_is_in_its_row(whole: dict[str, Any]) -> None:
    row, text = whole["rows"][1], line(whole, "kl")
    removal, beyond = row["poisons"]["removal"], row["poisons"]["beyond_twin"]
    must = ["1-2", share(removal["selective"]) + " *", nats(removal["net"]), times(row["overhead"]["time"])]
    must += [nats(beyond[name]["with"]) for name in ("out-of-domain", "conditional", "facts")]
    must += ["80 % [79, 81]", "25 % [4, 46]", f"{100 * row['tasks']['tax_at_most']:.0f} %"]
    assert [each for each in must if each not in text] == []


def test_the_star_is_for_what_is_selective_among_all(whole: dict[str, Any]) -> None:
    assert " *" in line(whole, "kl") and " *" not in line(whole, "plain")
    whole["rows"][1]["selective"] = False
    assert " *" not in line(whole, "kl")


def test_what_the_comparison_could_find_is_said(whole: dict[str, Any]) -> None:
    found = whole["baseline"]["beyond_twin"]["out-of-domain"]["without"]
    assert f"EM {nats(found)}" in markdown(whole)
    # Two t quantiles of 39 degrees of freedom, 2.023 and 0.851, times the standard error.
    assert f"finds EM of {2.874 * found['se']:.3f} nats in 80 % of cases" in markdown(whole)


def test_a_failed_method_shows_its_failure_and_no_numbers(whole: dict[str, Any]) -> None:
    assert "failed: diverged" in line(whole, "broken") and "%" not in line(whole, "broken")


def test_cures_come_after_preventions_and_the_best_first(whole: dict[str, Any]) -> None:
    text = markdown(whole)
    places = [text.index(f"| {name} |") for name in ("kl", "plain", "broken", "mender")]
    assert places == sorted(places)


def test_printing_writes_table_and_plot(whole: dict[str, Any], tmp_path: Path) -> None:
    out = io.StringIO()
    print_comparison(whole, Console(file=out, width=200), tmp_path)
    assert "kl" in out.getvalue() and PROXY in out.getvalue()
    assert (tmp_path / "comparison.md").read_text() == markdown(whole)
    drawn = (tmp_path / "pareto.svg").read_text()
    assert ">kl 1-2<" in drawn and ">plain 2-3<" in drawn and "broken" not in drawn and "net EM" in drawn


def test_a_comparison_without_a_baseline_or_a_twin_prints(whole: dict[str, Any], tmp_path: Path) -> None:
    for baseline in (None, Run(submission="none", twin=False).summary()["poisons"][0]):
        print_comparison(whole | {"baseline": baseline}, Console(file=io.StringIO(), width=200), tmp_path)
        assert "finds EM" not in (tmp_path / "comparison.md").read_text()


def test_a_point_is_first_where_no_other_is_certainly_better(whole: dict[str, Any]) -> None:
    points = [place(row) for row in whole["rows"]]
    assert [point and point["first"] for point in points] == [False, True, True, None]
    assert (
        points[1] is not None and points[1]["net"] == pytest.approx(0.15) and points[1]["label"] == "kl 1-2"
    )


@pytest.mark.parametrize("part", ["tax", "net"])
def test_what_is_not_defined_has_no_place(whole: dict[str, Any], part: str) -> None:
    undefined, row = dict.fromkeys(("value", "low", "high", "se", "df")), whole["rows"][1]
    if part == "tax":
        row["tasks"] = row["tasks"] | {"tax": row["tasks"]["tax"] | undefined}
    else:
        row["poisons"]["removal"]["net"] |= undefined
    assert place(row) is None
    assert line(whole, "kl").count("—") == 1
