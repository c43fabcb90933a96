"""`emperf check --json` prints one record on stdout, and its lines on stderr."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from tests.told import Told

from emperf import records
from emperf.cli import main
from emperf.experiments import session
from emperf.experiments.session import Choice
from emperf.runtimes.process import ProcessRuntime
from emperf.tools.conformance import show
from emperf.tools.conformance.checks import Check


def test_a_submission_that_no_job_is_made_of_has_a_record_too() -> None:
    said = CliRunner().invoke(main, ["check", "nonesuch", "--runtime", "process", "--json"])
    whole = json.loads(said.stdout)
    records.check("conformance", whole)
    assert said.exit_code == 1 and "FAILED  declared" in said.stderr
    assert whole["runtime"]["runtime"] == ProcessRuntime.name and not whole["passed"]
    (one,) = whole["submissions"]
    assert (one["folder"], one["digest"], one["passed"]) == ("nonesuch", None, False)
    assert [(found["name"], found["ok"]) for found in one["checks"]] == [("declared", False)]
    again = json.loads(
        CliRunner().invoke(main, ["check", "nonesuch", "--runtime", "process", "--json"]).stdout
    )
    assert again["run_id"] == whole["run_id"]


def test_the_runtime_that_was_used_is_the_one_that_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = Told(None)  # type: ignore[arg-type]
    monkeypatch.setattr(session, "choose_runtime", lambda *_: Choice(runtime, {}, "told", "told"))

    def check(folder: object, given: object, ground: object, choose: object) -> list[Check]:
        choose([])  # type: ignore[operator]
        return [Check("declared", True, "it is"), Check("effect", True, "it does")]

    monkeypatch.setattr(show, "check", check)
    said = CliRunner().invoke(main, ["check", "kl", "lisa", "--set", "weight=0.5", "--json"])
    whole = json.loads(said.stdout)
    assert said.exit_code == 0 and whole["passed"] and whole["parameters"] == {"weight": "0.5"}
    assert whole["runtime"] == runtime.describe()
    assert [one["folder"] for one in whole["submissions"]] == ["kl", "lisa"]
    assert all(one["digest"].startswith("sha256:") for one in whole["submissions"])
    plain = CliRunner().invoke(main, ["check", "kl"])
    assert "ok      declared" in plain.stdout and "{" not in plain.stdout
