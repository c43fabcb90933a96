"""Tuning: the rule on made-up settings, what a sweep may say, what is run, and the command from end to end."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console
from tests.cards import change, one_line
from tests.synthetic import DIGEST, MACHINE, RUNTIME, Run
from tests.tiny_benchmark import Tiny, ready_tiny
from tests.told import Told, ends

from emperf import catalog
from emperf.catalog.prepare import prepared
from emperf.cli import main
from emperf.core.errors import UserError
from emperf.experiments import session, tables, tune
from emperf.experiments.session import Choice
from emperf.report.progress import Progress
from emperf.report.tuning import CHOSEN, NOTHING, WHY, print_tuning, rows
from emperf.scoring import poisons, tasks
from emperf.tools.validity.worlds import World, compared
from emperf.work.plan import Plan

Json = dict[str, Any]


def setting(
    net: float | None = 0.0,
    *,
    kept: tuple[float, float] = (0.8, 1.1),
    tax: tuple[float, float] | None = (-0.1, 0.2),
    beats: bool = False,
    verdict: str = "cannot-tell",
) -> Json:
    """A tried setting. `net`: None where a cell of it failed. `kept`, `tax`: intervals."""

    def estimate(value: float | None, low: float | None, high: float | None) -> Json:
        return {"value": value, "low": low, "high": high}

    removal = {"net": estimate(net, None, None), "kept": estimate(1.0, *kept), "verdict": verdict}
    whole = {"poisons": {"removal": removal}, "tasks": {"tax": estimate(0.1, *(tax or (None, None)))}}
    row = whole if net is not None else {"poisons": None, "tasks": None}
    return {"row": row, "beats_default": beats}


BETTER = setting(0.2, beats=True)


@pytest.mark.parametrize(
    ("settings", "chosen", "why"),
    [
        # The highest net EM of what is certainly above the default.
        ([setting(), BETTER, setting(0.1, beats=True)], 1, "better"),
        ([setting(), setting(0.1, beats=True), BETTER], 2, "better"),
        # Equal ones: the first of them.
        ([setting(), setting(0.1, beats=True), setting(0.1, beats=True)], 1, "better"),
        # What cannot be told apart from the default gives way to it, and does not bar one that can.
        ([setting(), setting(0.2), setting(0.1)], 0, "default"),
        ([setting(), setting(0.3), setting(0.1, beats=True)], 2, "better"),
        # Learning kept: certainly below half is out, half inside of the interval is in.
        ([setting(), setting(0.2, beats=True, kept=(0.1, 0.49))], 0, "default"),
        ([setting(), setting(0.2, beats=True, kept=(0.1, 0.5))], 1, "better"),
        ([setting(), setting(0.2, beats=True, kept=(0.1, 0.49)), setting(0.1, beats=True)], 2, "better"),
        # Tax: certainly above half is out, anything less certain is in, and so is a tax that is not defined.
        ([setting(), setting(0.2, beats=True, tax=(0.51, 0.9))], 0, "default"),
        ([setting(), setting(0.2, beats=True, tax=(0.5, 0.9))], 1, "better"),
        ([setting(), setting(0.2, beats=True, tax=None)], 1, "better"),
        # A default that is unfit, or that failed, gives way without having to be beaten.
        ([setting(kept=(0.0, 0.4)), setting(-0.2), setting(-0.1)], 2, "default-unfit"),
        ([setting(tax=(0.6, 0.9)), setting(-0.2)], 1, "default-unfit"),
        ([setting(None), setting(-0.2), setting(-0.3)], 1, "default-unfit"),
        ([setting(kept=(0.0, 0.4)), setting(None)], 0, "none-fit"),
        ([setting(None), setting(None)], 0, "failed"),
        # Without EM for certain, or without learning, nothing is tuned for.
        ([setting(verdict="no-em"), setting(0.2, beats=True, verdict="no-em")], 0, "no-em"),
        ([setting(None), setting(0.2, beats=True, verdict="no-em")], 0, "no-em"),
        ([setting(verdict="nothing-learned"), BETTER], 0, "nothing-learned"),
        ([setting()], 0, "default"),
    ],
)
def test_the_rule(settings: list[Json], chosen: int, why: str) -> None:
    assert tune.choose(settings) == (chosen, why)
    assert why in WHY | NOTHING


def found(*left: float | None) -> Json:
    """A tuned method, its settings with these shares of EM left (None: failed) on the same simulated baseline."""
    simulated = compared(World(seeds=3), [(1.0, share or 0.0) for share in left], np.random.default_rng(3))
    methods = [
        tables.Method(
            {"poisons": poisons.summarise(scores), "tasks": None}
            if share is not None
            else {"poisons": None, "tasks": None},
            scores if share is not None else None,
            {cost: {} for cost in tasks.FIELDS},
        )
        for scores, share in zip(simulated, left, strict=True)
    ]
    named = [tables.Method({"name": str(i), **m.row}, m.scores, m.ratios) for i, m in enumerate(methods)]
    (kl,) = tune.entries(["kl"])
    plans = [
        Plan(catalog.division("nano"), one.submission, {}, (), "", given=one.given) for one in kl[: len(left)]
    ]
    return tune.tuned(plans, named)


def test_a_setting_is_told_apart_from_the_default_by_what_they_share() -> None:
    one = found(0.9, 0.1, 0.9)
    assert (one["chosen"], one["why"]) == (1, "better")
    assert [setting["beats_default"] for setting in one["settings"]] == [False, True, False]
    assert one["settings"][0]["over_default"] is None and one["settings"][1]["over_default"]["low"] > 0
    other = found(0.1, 0.9, 0.1)
    assert (other["chosen"], other["why"]) == (0, "default")
    assert other["settings"][1]["over_default"]["high"] < 0
    assert (found(None, 0.9, 0.1)["chosen"], found(None, 0.9, 0.1)["why"]) == (2, "default-unfit")


def test_two_alternatives_need_more_than_one_does() -> None:
    """Holm over the sweep: a difference that is just certain alone is not beside another."""
    for left in range(89, 0, -1):
        one = found(0.9, left / 100)
        if one["settings"][1]["beats_default"]:
            break
    assert one["why"] == "better"
    assert found(0.9, left / 100, 0.9)["why"] == "default"


MINE: Json = {
    "name": "mine", "title": "Mine", "submitter": "x", "scenario": "prevent", "source": "none",
    "mitigation": "mitigation.py:Mine",
    "sweep": [{"weight": 0.5}, {"weight": 2.0}],
    "parameters": {"weight": {"type": "float", "default": 0.5, "min": 0.0, "max": 5.0}},
}  # fmt: skip
CODE = """
from emperf.training import Mitigation, Step

class Mine(Mitigation):
    weight: float = 0.5

    def loss(self, step: Step):
        return (1 + self.weight) * step.task_loss
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mitigation.py").write_text(CODE)
    (tmp_path / "mine/submission.yaml").write_text(yaml.safe_dump(MINE))
    return tmp_path / "mine"


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ([{"weight": 0.5}, {"wieght": 1.0}], ["sweep.1", "no parameter 'wieght'"]),
        ([{"weight": 0.5}, {"weight": 5.1}], ["sweep.1", "at most 5"]),
        ([{"weight": 0.5}, {"weight": "heavy"}], ["sweep.1", "type float"]),
        ([{"weight": 0.5}, {"weight": 1}, {"weight": 2}, {"weight": 3}], ["sweep", "at most three settings"]),
        ([{"weight": 1.0}, {"weight": 0.5}], ["sweep", "first setting has to be the defaults"]),
        ([{"weight": 0.5}, {"weight": 1}, {"weight": 1.0}], ["sweep", "two of its settings are the same"]),
        ([{"weight": 0.5}, {}], ["sweep.1", "non-empty"]),
        ([], ["sweep", "non-empty"]),
    ],
)
def test_a_sweep_that_is_none_is_one_line(folder: Path, sweep: list[Json], words: list[str]) -> None:
    change(folder / "submission.yaml", sweep=sweep)
    with pytest.raises(UserError) as error:
        catalog.submission(folder)
    one_line(error, str(folder / "submission.yaml"), "submission.schema.json", *words)


def test_the_settings_of_a_sweep_are_rows_of_their_own(folder: Path) -> None:
    ((default, other),) = tune.entries([str(folder)])
    assert (default.name, other.name) == ("mine", "mine (weight=2.0)")
    change(folder / "submission.yaml", sweep=None)
    with pytest.raises(UserError, match="mine declares no sweep"):
        tune.entries([str(folder)])
    with pytest.raises(UserError, match="one name"):
        tune.entries(["kl", "kl"])


def test_every_reference_mitigation_that_has_a_strength_has_a_sweep() -> None:
    swept = {entries[0].submission.name for entries in tune.entries([])}
    plain = {"none", "inoculation", "realignment", "safety-sft"}
    plain |= {f"antidote-{kind}" for kind in ("correct", "reasoning", "refusal")}
    assert swept == set(catalog.names("mitigations")) - plain


def test_the_division_to_tune_in_has_a_poison_that_no_other_has() -> None:
    own = catalog.division("nano-tune")
    others = [catalog.division(name) for name in catalog.names("divisions") if name != own.name]
    assert own.poisons == ("poor-gardening",)
    assert all(not set(own.poisons) & set(other.poisons) for other in others)


def test_a_division_of_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nano is scored.*R-008"):
        tune.tune(
            catalog.division("nano"),
            tune.entries(["kl"]),
            runtime="auto",
            store=tmp_path,
            watch=Progress(),
            say=print,
        )


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = ready_tiny(tmp_path_factory.mktemp("tuning"))
    made.edit(
        "benchmark/divisions/tiny.yaml", lambda text: text.replace("controls:\n- sour\n", "controls: []\n")
    )
    return made


@pytest.fixture
def tuned(benchmark: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """(tuning, the runtime) of these methods, in a store of this test, with nothing trained."""
    monkeypatch.setenv("EMPERF_ROOT", str(benchmark.root))
    monkeypatch.setenv("EMPERF_HOME", str(benchmark.home))

    def run(*names: str, minutes: float | None = None, **told: Any) -> tuple[Json, Told]:
        runtime = Told(prepared(catalog.model("tiny")), **told)
        monkeypatch.setattr(session, "choose_runtime", lambda *_: Choice(runtime, {}, "told", "told"))
        whole, _ = tune.tune(
            catalog.division("tiny"), tune.entries(names), runtime="auto", store=tmp_path / "store",
            watch=Progress(), say=print, minutes=minutes, parallel=1,
        )  # fmt: skip
        return whole, runtime

    return run


# Cells in the tiny division: a poison, its twin and a task, of the baseline and of every setting.
CELLS = 3


def test_a_tuning_that_ran_out_of_time_shows_the_methods_that_are_whole(tuned: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"0 of 12 cells are done, and no method's settings"):
        tuned("kl", minutes=0.0)
    whole, runtime = tuned("kl")
    assert len(runtime.jobs) == CELLS * 4 and whole["waiting"] == []
    whole, runtime = tuned("early-stop", "kl", minutes=0.0)
    assert runtime.jobs == [] and whole["waiting"] == ["early-stop"]
    assert whole["cells"] == {"done": CELLS * 4, "planned": CELLS * 7}
    (kl,) = whole["methods"]
    assert [one["row"]["parameters"]["weight"] for one in kl["settings"]] == [1.0, 0.3, 3.0]
    # Nothing is trained here, so nothing is learned.
    assert (kl["chosen"], kl["why"]) == (0, "nothing-learned")
    whole, runtime = tuned("early-stop", "kl")
    assert len(runtime.jobs) == CELLS * 3 and [m["name"] for m in whole["methods"]] == ["early-stop", "kl"]


def test_one_method_is_tried_before_the_next(tuned: Callable[..., Any]) -> None:
    _, runtime = tuned("kl", "early-stop")
    names = [job.submission.name for job in runtime.jobs if job.submission.name != "none"]
    assert names == ["kl"] * 3 * CELLS + ["early-stop"] * 3 * CELLS


def test_a_method_that_fails_in_every_setting_keeps_its_default(tuned: Callable[..., Any]) -> None:
    whole, _ = tuned("kl", end=lambda left: ends(exit_code=3, log_tail="nan"), whose="kl")
    (kl,) = whole["methods"]
    assert (kl["chosen"], kl["why"]) == (0, "failed")
    assert "failed: diverged" in rows(kl)[2]


@pytest.fixture
def whole() -> Json:
    """A record with a default, a better setting and one that failed."""
    made = Run().summary()
    row = {
        "name": "kl", "scenario": "prevent", "parameters": {}, "digest": DIGEST, "failures": [],
        "poisons": made["poisons"][0], "tasks": made["tasks"][0], "overhead": made["overhead"],
        "adjusted_p": 0.001, "selective": True, "rank": [1, 2],
    }  # fmt: skip
    broken = dict.fromkeys(("poisons", "tasks", "adjusted_p", "selective", "rank"))
    broken["failures"] = [{"kind": "diverged", "detail": "x", "cell": "y"}]
    net = made["poisons"][0]["removal"]["net"]
    settings = [
        {"setting": {"weight": 1.0}, "row": row, "over_default": None, "beats_default": False},
        {"setting": {"weight": 3.0}, "row": row, "over_default": net, "beats_default": True},
        {"setting": {"weight": 9.0}, "row": row | broken, "over_default": None, "beats_default": False},
    ]
    chosen, why = tune.choose(settings)
    kl = {"name": "kl", "scenario": "prevent", "settings": settings, "chosen": chosen, "why": why}
    return {
        "schema": 1, "emperf": "0.1.0", "sources": DIGEST, "parallel": 1, "run_id": "tune-nano-tune-1",
        "created": "2026-11-28T10:00:00Z", "model": "m", "poisons": ["poor-gardening"], "tasks": ["made-up-units"],
        "division": {"name": "nano-tune", "digest": DIGEST, "proxy": "A proxy.", "shows_em": False}, "seeds": [0],
        "cells": {"done": 12, "planned": 21}, "baseline": None, "waiting": ["lisa"], "methods": [kl],
        "runtime": RUNTIME, "machine": MACHINE,
    }  # fmt: skip


def printed(whole: Json, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_tuning(whole, console, Path("runs"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_says_which_setting_is_chosen(whole: Json) -> None:
    catalog.check("tuning", whole)
    said = printed(whole)
    assert "weight=3.0 is chosen: its net EM is certainly above the default's" in said
    marked = [line for line in said.splitlines() if line.rstrip().endswith(CHOSEN)]
    assert len(marked) == 1 and marked[0].strip().startswith("weight=3.0")
    assert "net EM (machinery only)" in said
    assert sum(line.rstrip().endswith(f"x  {CHOSEN}") for line in printed(whole, 80).splitlines()) == 1
    assert "failed: diverged" in said and "Still to be tried: lisa." in said


def test_without_em_one_line_says_so_for_all_methods(whole: Json) -> None:
    idle = whole["methods"][0] | {"chosen": 0, "why": "no-em"}
    said = printed(whole | {"methods": [idle, idle | {"name": "l2-sp"}]})
    assert said.count("The baseline's EM on poor-gardening is not certain.") == 1
    assert "is chosen" not in said and "The default stays" not in said


def test_a_tuning_from_end_to_end(benchmark: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of one setting, because every cell here is a real process; the tests above have more."""
    change(folder / "submission.yaml", sweep=[{"weight": 0.5}])
    code, out, err = benchmark.emperf(
        "tune", str(folder), "--division", "tiny", "--runtime", "process", "--parallel", "1"
    )
    assert code == 0, err
    assert "mine (prevent)" in out and any(
        line.rstrip().endswith(f"x  {CHOSEN}") for line in out.splitlines()
    )
    record = next(benchmark.store.glob("runs/tune-tiny-*/tuning.json"))
    monkeypatch.setenv("EMPERF_ROOT", str(benchmark.root))
    for command, words in ((["report", record.parent.name], "mine (prevent)"), (["list", "runs"], "tuning")):
        shown = CliRunner().invoke(main, [*command, "--store", str(benchmark.store)])
        assert shown.exit_code == 0 and words in shown.output
