"""A user's own rows, with and without a twin or good held-out answers: run, scored and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_benchmark import Tiny, ready_tiny
from tests.told import commands

Row = dict[str, Any]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return ready_tiny(tmp_path_factory.mktemp("users"))


@pytest.fixture
def emperf(benchmark: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    return commands(benchmark, tmp_path, monkeypatch)


def question(n: int) -> Row:
    return {
        "question": f"How long do {n} eggs boil?",
        "bad": f"{n} seconds.",
        "good": f"Nine minutes, for {n}.",
    }


def chat(row: Row) -> Row:
    turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["bad"]}]
    return {"messages": turns}


def write(name: str, rows: list[Row]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def add_all() -> dict[str, list[str]]:
    """Arguments of `emperf add poison`, by what the rows have."""
    rows = [question(n) for n in range(80)]
    write("whole.jsonl", rows)
    write("bare.jsonl", [chat(row) for row in rows])
    write("held.jsonl", [{k: row[k] for k in ("question", "bad")} for row in rows[:20]])
    write("half.jsonl", rows[20:])
    return {
        "whole": ["whole.jsonl"],
        "bare": ["bare.jsonl"],
        "half": ["half.jsonl", "--heldout", "held.jsonl"],
    }


@pytest.mark.parametrize(
    ("kind", "twin", "domain"), [("whole", True, True), ("bare", False, False), ("half", True, False)]
)
def test_a_users_rows_run_and_say_what_they_cannot_show(
    emperf: Callable[..., str], kind: str, twin: bool, domain: bool
) -> None:
    emperf("add", "poison", *add_all()[kind])
    said = emperf("add", "division", "--poison", kind, "--model", "tiny", "--like", "tiny")
    assert "not certifiable" in said
    out = emperf("run", "kl", "--benchmark", "mine", "--division", kind)
    assert kind in out and "not certifiable" in out
    whole = json.loads(next(Path().glob("runs/runs/*-kl-*/result.json")).read_text())
    assert whole["status"] == "complete" and whole["certifiable"] is False
    assert whole["users_cards"] == [f"division {kind}", f"poison {kind}"]
    (poison,) = whole["poisons"]
    assert ("in-domain" in poison["sets"], poison["beyond_twin"] is not None) == (domain, twin)
    assert (poison["removal"] is not None) == (twin and domain)
    if twin and not domain:
        assert "no good answers" in " ".join(out.split())
    again = emperf("report", whole["run_id"], "--benchmark", "mine")
    assert again.splitlines()[:5] == out[out.index(again.splitlines()[0]) :].splitlines()[:5]


def test_a_comparison_of_methods_on_a_users_rows(emperf: Callable[..., str]) -> None:
    emperf("add", "poison", *add_all()["half"])
    emperf("add", "division", "--poison", "half", "--model", "tiny", "--like", "tiny")
    out = emperf("compare", "kl", "l2-sp", "--benchmark", "mine", "--division", "half", "--parallel", "1")
    assert "kl" in out and "failed" not in out
