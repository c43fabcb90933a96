"""`emperf list`: records, and runs of which some are damaged."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from emperf.cli import main
from emperf.tools import listing

CELLS = [
    {"method": "none", "parameters": {}, "seed": 0},
    {"method": "kl", "parameters": {"weight": 0.3}, "seed": 0},
]


def write(store: Path, name: str, facts: Any, **records: Any) -> None:
    folder = store / "runs" / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(facts if isinstance(facts, str) else json.dumps(facts))
    for record, value in records.items():
        (folder / f"{record}.json").write_text(value if isinstance(value, str) else json.dumps(value))


def facts(name: str, **changes: Any) -> dict[str, Any]:
    return {"run_id": name, "created": 1795874933.9, "cells": CELLS, **changes}


def printed(store: Path) -> str:
    out = io.StringIO()
    listing.print_entries("runs", listing.entries("runs", store), Console(file=out, width=80))
    return out.getvalue()


def test_a_run_shows_its_methods_parameters_and_date(tmp_path: Path) -> None:
    write(tmp_path, "smoke-kl-1", facts("smoke-kl-1"), result={"status": "complete"})
    write(tmp_path, "smoke-none-1", facts("smoke-none-1", cells=CELLS[:1]))
    write(
        tmp_path,
        "compare-nano-1",
        facts("compare-nano-1", cells=[{"method": str(i)} for i in range(9)]),
        comparison={},
    )
    lines = {line.split()[0]: line.rstrip() for line in printed(tmp_path).splitlines()}
    assert lines["smoke-kl-1"].split(maxsplit=4)[1:] == ["complete", "2026-11-28", "14:08", "kl (weight=0.3)"]
    assert lines["smoke-none-1"].split()[1:] == ["unfinished", "2026-11-28", "14:08", "none"]
    assert lines["compare-nano-1"].split()[1] == "comparison" and lines["compare-nano-1"].endswith(
        "9 methods"
    )


@pytest.mark.parametrize(
    ("run_json", "result"),
    [
        ('{"run_id": "x", "cr', None),
        ("[1]", None),
        ("{}", None),
        ({"run_id": "bad"}, None),
        (facts("bad", created="yesterday"), None),
        (facts("bad", created=1e300), None),
        (facts("bad", cells=7), None),
        (facts("bad", cells=[{"seed": 0}]), None),
        (facts("bad"), '{"status'),
        (facts("bad"), [1]),
    ],
)
def test_a_damaged_run_is_named_and_the_others_are_listed(tmp_path: Path, run_json: Any, result: Any) -> None:
    write(tmp_path, "bad", run_json, **({} if result is None else {"result": result}))
    write(tmp_path, "good", facts("good"), result={"status": "complete"})
    ran = CliRunner().invoke(main, ["list", "runs", "--store", str(tmp_path)])
    assert ran.exit_code == 0
    lines = [line.split() for line in ran.output.splitlines() if line]
    assert ["bad", "damaged"] in [words[:2] for words in lines]
    assert ["good", "complete"] in [words[:2] for words in lines]
    assert any(words[0] == "bad:" for words in lines)
    bad, good = json.loads(
        CliRunner().invoke(main, ["list", "runs", "--json", "--store", str(tmp_path)]).output
    )
    assert (
        bad["status"] == "damaged"
        and str(tmp_path / "runs" / "bad") in bad["problem"]
        and "problem" not in good
    )
    assert good["methods"] == {"kl": {"weight": 0.3}} and good["created"] == "2026-11-28T14:08:53Z"


def test_no_runs(tmp_path: Path) -> None:
    assert printed(tmp_path) == "(none)\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), ([], "-"), ({}, "-"), (0, "0"), (True, "yes"), (["a", "b"], "a, b"),
        ({"a": 1, "b": {"c": 2}, "d": {}}, "a=1, b (c=2), d"), ([{"a": 1}, {"a": 2}], "a=1; a=2"),
    ],
)  # fmt: skip
def test_fields_as_text(value: Any, text: str) -> None:
    assert listing.text(value) == text
