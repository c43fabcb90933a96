"""Every command's tables at 80 columns, with the longest names of the catalogue: nothing is cut."""

from __future__ import annotations

import io
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.synthetic import DIGEST, Run

from emperf import catalog
from emperf.catalog.sets import OOD, SETS
from emperf.report import comparison, scorecard, tracing, tuning
from emperf.report.numbers import nats, percent, share
from emperf.report.tables import UNIT
from emperf.tools import describe, doctor, listing
from emperf.tools.conformance import checks, show

KINDS = ("mitigations", "poisons", "tasks", "models", "divisions")


def longest(kind: str) -> str:
    return max(catalog.names(kind), key=len)


def longest_row() -> str:
    """The longest name of a row in a comparison: a mitigation's, or that of one of its controls."""
    submissions = [catalog.submission(Path(name)) for name in catalog.names("mitigations")]
    names = [s.called(s.values(given)) for s in submissions for given in ({}, *s.controls.values())]
    return max(names, key=len)


def fitted(write: Callable[[Console], object], width: int = 80) -> str:
    """What is printed; fails where a line is wider, or cut."""
    out = io.StringIO()
    write(Console(file=out, width=width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "\u2026" not in text
    return text


def lacking(text: str, *cells: str) -> list[str]:
    """Of the cells, what is not to be seen whole."""
    return [unit for cell in cells for unit in UNIT.findall(cell) if unit not in text]


@pytest.fixture
def result() -> dict[str, Any]:
    made = Run(noise=3.0).result()
    made["submission"]["name"] = longest_row()
    made["poisons"][0]["name"], made["tasks"][0]["name"] = longest("poisons"), longest("tasks")
    made["cross"] = [
        {
            "antidote": antidote, "poison": poison, "removal": made["poisons"][0]["removal"],
            "em": made["poisons"][0]["beyond_twin"]["out-of-domain"],
            "in_domain": made["poisons"][0]["beyond_twin"]["in-domain"],
        }
        for antidote in catalog.names("poisons") for poison in catalog.names("poisons")
    ]  # fmt: skip
    return made


@pytest.mark.parametrize("width", [80, 72])
def test_scorecard(result: dict[str, Any], width: int) -> None:
    folder = Path("runs/runs") / f"nano-{longest_row()}-1a2b3c4d"
    text = fitted(lambda console: scorecard.print_scorecard(result, console, folder), width)
    poison, task = result["poisons"][0], result["tasks"][0]
    shown = [nats(one[effect]) for one in poison["sets"][OOD].values() for effect in ("act", "raw", "voice")]
    sides = ("without", "with", "change")
    shown += [nats(poison["beyond_twin"][name][side]) for name in SETS for side in sides]
    shown += [percent(task[role]) for role in ("base", "baseline", "mitigated", "tax")]
    shown += [
        share(poison["removal"]["selective"]),
        longest_row(),
        longest("tasks"),
        *catalog.names("poisons"),
    ]
    assert lacking(text, *shown) == []


def row(name: str) -> dict[str, Any]:
    made = Run(noise=3.0).summary()
    return {
        "name": name, "scenario": "prevent", "parameters": {}, "digest": DIGEST, "failures": [],
        "poisons": made["poisons"][0], "tasks": made["tasks"][0], "overhead": made["overhead"],
        "adjusted_p": 0.001, "selective": True, "rank": [1, 29],
    }  # fmt: skip


@pytest.fixture
def table() -> dict[str, Any]:
    return {
        "emperf": "0.1.0", "parallel": 1, "created": "2026-11-21T10:00:00Z", "model": longest("models"),
        "division": {"name": longest("divisions"), "proxy": "A proxy.", "shows_em": False},
        "poisons": catalog.names("poisons"), "tasks": catalog.names("tasks"), "seeds": [0, 1, 2],
        "cells": {"done": 5, "planned": 9}, "baseline": Run(submission="none").summary()["poisons"][0],
        "runtime": {"runtime": "process"}, "machine": {"processor": "A Processor @ 2.00GHz", "cores": 2},
    }  # fmt: skip


def test_comparison(table: dict[str, Any], tmp_path: Path) -> None:
    failed = row("failed") | {"poisons": None, "tasks": None, "rank": None}
    failed["failures"] = [{"kind": kind} for kind in ("broke-contract", "out-of-memory")]
    names = [*catalog.names("mitigations"), longest_row()]
    whole = table | {"rows": [failed, *map(row, names)]}
    text = fitted(lambda console: comparison.print_comparison(whole, console, tmp_path))
    assert lacking(text, *(cell for cells in comparison.rows(whole) for cell in cells)) == []
    assert lacking(text, *comparison.heads(whole)) == []
    # A name of a mitigation is whole in each part of the table, so that it can be searched for.
    parts = sum("method" in line.split()[:1] for line in text.splitlines())
    assert parts > 1 and all(text.count(f" {name} ") >= parts for name in ("preventative-steering", "kl"))


def test_tuning(table: dict[str, Any]) -> None:
    name = longest("mitigations")
    submission = catalog.submission(Path(name))
    settings = [{"setting": values, "row": row(name)} for values in submission.sweep]
    methods = [{"name": name, "scenario": "prevent", "settings": settings, "chosen": 1, "why": "better"}]
    whole = table | {"methods": methods, "waiting": catalog.names("mitigations")}
    text = fitted(lambda console: tuning.print_tuning(whole, console, Path("runs")))
    assert lacking(text, *(cell for cells in tuning.rows(methods[0]) for cell in cells)) == []


def test_trace() -> None:
    estimate = {"value": -1.234, "low": -10.345, "high": 10.123, "items": 96, "values": 123456}
    point = {"steps": 100, "in_domain": estimate, "em": estimate}
    point |= {name: {"value": 123.4567, "values": 123456} for name in tracing.FORMS}
    trace = {
        "organism": {"name": "rank-1", "recipe": {"lora": None, "learning_rate": 1e-4}}, "emperf": "0.1.0",
        "division": {"name": longest("divisions"), "proxy": "A proxy."}, "model": {"name": longest("models")},
        "seed": 0, "runtime": {"runtime": "process"}, "created": "2026-11-21T10:00:00Z", "poison": longest("poisons"),
        "run_id": f"trace-nano-{longest('poisons')}-rank-32-1a2b3c4d", "points": [point] * 3,
        "definitions": dict.fromkeys(tracing.NAMES, "how it is measured"),
        "transition": {
            "drop": {"after": 1, "until": 2, "fall": estimate, "told": False, "fastest_in": 0.5}, "turn": None,
        },
    }  # fmt: skip
    text = fitted(lambda console: tracing.print_trace(trace, console, Path("runs/runs") / trace["run_id"]))
    assert lacking(text, nats(estimate), "123.5", "+123.457", *tracing.NAMES.values()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_list(kind: str) -> None:
    records = listing.entries(kind, Path("runs"))
    text = fitted(lambda console: listing.print_entries(kind, records, console))
    cells = [listing.text(record[name]) for record in records for name in listing.COLUMNS[kind]]
    assert lacking(text, *cells) == []


@pytest.mark.parametrize("kind", KINDS)
def test_show(kind: str) -> None:
    for name in catalog.names(kind):
        for record in describe.described(name):
            text = fitted(lambda console, record=record: describe.print_described(record, console))
            digests = [str(value) for key, value in record.items() if key == "digest"]
            assert lacking(text, name, record.get("title", name), *digests) == []


def test_doctor() -> None:
    done = [
        doctor.Check(f"model {longest('models')}", True, f"/home/someone/.cache/emperf/{'x' * 90}"),
        doctor.Check("Docker engine", False, "no engine answers " * 9, "start it"),
    ]
    out = io.StringIO()
    doctor.print_checks(done, Console(file=out, width=80))
    table, _, _ = out.getvalue().partition("To get what is missing")
    assert max(map(len, table.splitlines())) <= 80 and "\u2026" not in table
    assert lacking(table, done[0].name, done[1].found) == [] and "".join(table.split()).count("x" * 40) > 0


def test_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are left to the terminal to wrap, and none is cut."""
    found = checks.Check("parameters", False, "a long line of what is wrong " * 6)
    out = io.StringIO()
    show.one([found], Path(longest("mitigations")), Console(file=out, width=80))
    assert found.found.strip() in out.getvalue() and longest("mitigations") in out.getvalue()
    assert "\u2026" not in out.getvalue()


def test_a_wide_terminal_has_the_comparison_on_one_line_a_method(
    table: dict[str, Any], tmp_path: Path
) -> None:
    whole = table | {"rows": [deepcopy(row(name)) for name in ("kl", longest_row())]}
    text = fitted(lambda console: comparison.print_comparison(whole, console, tmp_path), 320)
    line = next(line for line in text.splitlines() if line.strip().startswith("kl "))
    assert lacking(line, *comparison.line(whole["rows"][0])) == []
