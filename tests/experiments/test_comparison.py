"""The comparison: its order, what it holds when stopped, and what one more method costs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tests.tiny_benchmark import Tiny, ready_tiny
from tests.told import Told, ends

from emperf import catalog
from emperf.catalog import SeedSpread
from emperf.catalog.prepare import prepared
from emperf.cli import main
from emperf.core.errors import UserError
from emperf.execute.results import Index, Results
from emperf.experiments import comparison, session, tables
from emperf.experiments.session import Choice
from emperf.report.progress import Progress
from emperf.scoring import poisons, tasks
from emperf.tools.validity.worlds import World, compared
from emperf.work.plan import make_plan


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return ready_tiny(tmp_path_factory.mktemp("comparison"))


@pytest.fixture
def compare(benchmark: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """(comparison, the runtime) of these methods, in a store of this test."""
    monkeypatch.setenv("EMPERF_ROOT", str(benchmark.root))
    monkeypatch.setenv("EMPERF_HOME", str(benchmark.home))

    def run(
        *names: str, minutes: float | None = None, chosen: Any = None, **told: Any
    ) -> tuple[dict[str, Any], Told]:
        runtime = Told(prepared(catalog.model("tiny")), **told)
        monkeypatch.setattr(session, "choose_runtime", lambda *_: Choice(runtime, {}, "told", "told"))
        whole, _ = comparison.compare(
            catalog.division("tiny"), chosen or comparison.entries(names), runtime="auto", store=tmp_path / "store",
            watch=Progress(), say=print, minutes=minutes, parallel=1,
        )  # fmt: skip
        return whole, runtime

    return run


def method(name: str, left: float, **row: Any) -> tables.Method:
    """A method of simulated scores, which all share their baseline, at a known cost."""
    scores = compared(World(seeds=3), [(1.0, left)], np.random.default_rng(3))[0]
    costs = {cost: {"a": 1.5, "b": 1.6} if cost == "time" else {} for cost in tasks.FIELDS}
    return tables.Method({"name": name, **row}, scores, costs)


def test_side_by_side_methods_have_adjusted_p_ranks_and_costs() -> None:
    rows = tables.side_by_side(
        [method("good", 0.1), method("plain", 1.0), replace(method("broken", 1.0), scores=None)]
    )
    good, plain, broken = rows
    assert good["selective"] and not plain["selective"] and broken["selective"] is None
    assert good["rank"] == [1, 1] and plain["rank"] == [2, 2] and broken["rank"] is None
    assert [row["overhead"]["time"]["value"] for row in rows] == pytest.approx([2.4**0.5] * 3, abs=1e-6)
    alone = tables.side_by_side([method("good", 0.1)])[0]
    assert good["adjusted_p"] == pytest.approx(2 * alone["adjusted_p"], abs=2e-6)


def test_a_weak_finding_among_many_methods_is_none() -> None:
    """One method alone is selective; beside nulls it is not."""
    weak = next(
        m for m in (method("weak", left / 100) for left in range(100, 0, -1))
        if 0.01 < poisons.removal(m.scores).p < 0.03 and poisons.removal(m.scores).net.above_zero
    )  # fmt: skip
    others = [method(f"null {i}", 1.0) for i in range(25)]
    assert tables.side_by_side([weak])[0]["selective"]
    assert not any(row["selective"] for row in tables.side_by_side([weak, *others]))


def test_the_mean_of_several_tasks_varies_less_between_seeds() -> None:
    division = replace(catalog.division("nano"), tasks=("record-line", "post-desk"), seeds=(0,))
    spread = SeedSpread(12.0, {}, 0.1, 12.0)
    answers = {"items": [{"exact": i % 3 > 0} for i in range(12)]}
    base = {"tasks": {name: {"items": [{"exact": False}] * 12} for name in division.tasks}}
    ground = session.ground_of(division, "here")
    kl = comparison.entries(["kl"])[0]

    def se(tasks: int) -> float:
        part = replace(division, tasks=division.tasks[:tasks], seed_spread=spread)
        plan = make_plan(part, kl.submission, catalog.submission(Path("none")), {}, ground)
        found = tables.all_tasks(plan, lambda key: answers, base)
        assert found is not None
        return float(found["baseline"]["se"])

    items = [(2 / 9 * 12 * n / (12 * n - 1) / (12 * n)) ** 0.5 for n in (1, 2)]
    assert se(1) == pytest.approx((items[0] ** 2 + 0.1**2) ** 0.5, abs=1e-6)
    assert se(2) == pytest.approx((items[1] ** 2 + 0.1**2 / 2) ** 0.5, abs=1e-6)


# What a method costs in the tiny division: its poison, its twin, its task. The baseline has a voice control beside.
OWN, BASELINE = 3, 4


def test_baselines_are_trained_once_and_a_method_more_costs_its_own_cells(
    compare: Callable[..., Any],
) -> None:
    first, runtime = compare("kl", "antidote-correct")
    methods = [job.submission.name for job in runtime.jobs]
    assert sorted(methods) == sorted(["none"] * BASELINE + ["kl"] * OWN + ["antidote-correct"] * OWN)
    assert [row["name"] for row in first["rows"]] == ["kl", "antidote-correct"]
    assert first["cells"] == {"done": BASELINE + 2 * OWN, "planned": BASELINE + 2 * OWN}
    more, runtime = compare("kl", "antidote-correct", "early-stop")
    assert [job.submission.name for job in runtime.jobs] == ["early-stop"] * OWN
    # What stands beside other methods (ranks, adjusted p, the level of costs that all share) may change.
    alone = ("name", "parameters", "digest", "failures", "poisons", "tasks")
    assert [{k: row[k] for k in alone} for row in more["rows"][:2]] == [
        {k: row[k] for k in alone} for row in first["rows"]
    ]
    assert more["baseline"] == first["baseline"]


def test_the_baseline_has_its_voice_controls(compare: Callable[..., Any]) -> None:
    whole, _ = compare("kl")
    assert set(whole["baseline"]["beyond_controls"]) == {"sour"}
    assert set(whole["baseline"]["sets"]["out-of-domain"]) == {"poisoned", "twin", "sour"}


def test_a_comparison_that_ran_out_of_time_says_what_is_missing_and_goes_on(
    compare: Callable[..., Any],
) -> None:
    with pytest.raises(
        UserError, match=rf"0 of {BASELINE + OWN} cells are done, .* Run the same command again"
    ):
        compare("kl", minutes=0.0)
    whole, _ = compare("kl")
    assert whole["cells"] == {"done": BASELINE + OWN, "planned": BASELINE + OWN}
    assert whole["tasks"] == ["made-up-units"]


def test_a_control_is_a_row_of_its_own(compare: Callable[..., Any]) -> None:
    whole, _ = compare("caft")
    assert [row["name"] for row in whole["rows"]] == ["caft", "caft (random)"]
    assert [row["parameters"]["directions"] for row in whole["rows"]] == ["pca", "random"]


def test_a_method_that_fails_is_named_and_the_others_stay(compare: Callable[..., Any]) -> None:
    whole, _ = compare("kl", "l2-sp", end=lambda left: ends(exit_code=3, log_tail="nan"), whose="l2-sp")
    kl, broken = whole["rows"]
    assert kl["poisons"] is not None and kl["failures"] == []
    assert broken["poisons"] is None and {f["kind"] for f in broken["failures"]} == {"diverged"}
    assert [broken[key] for key in ("adjusted_p", "selective", "rank")] == [None, None, None]


def test_a_method_that_the_division_cannot_run_stops_it_before_anything_is_trained(
    compare: Callable[..., Any], benchmark: Tiny
) -> None:
    path = "benchmark/divisions/tiny.yaml"
    before = (benchmark.root / path).read_text()
    benchmark.edit(path, lambda text: text.replace("trusted_rows: 48", "trusted_rows: 8"))
    try:
        with pytest.raises(UserError, match=r"antidote-correct asks for 48 trusted rows, tiny grants 8"):
            compare("kl", "antidote-correct")
    finally:
        (benchmark.root / path).write_text(before)


def test_a_sweep_is_a_row_a_value_and_shares_the_baseline(compare: Callable[..., Any]) -> None:
    chosen = comparison.swept(comparison.entries(["kl"]), ["weight=0.1,0.3"])
    whole, runtime = compare(chosen=chosen)
    assert [row["name"] for row in whole["rows"]] == ["kl (weight=0.1)", "kl (weight=0.3)"]
    assert [row["parameters"]["weight"] for row in whole["rows"]] == [0.1, 0.3]
    methods = [job.submission.name for job in runtime.jobs]
    assert sorted(methods) == ["kl"] * 2 * OWN + ["none"] * BASELINE
    many = comparison.swept(comparison.entries(["lisa"]), ["task_steps=3,4", "rho=0.1,1"])
    assert [entry.name for entry in many] == [
        "lisa", "lisa (rho=1.0)", "lisa (task_steps=4)", "lisa (task_steps=4, rho=1.0)",
    ]  # fmt: skip


def test_the_command_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def compared_with(division: Any, chosen: Any, **_: Any) -> Any:
        asked.extend(entry.name for entry in chosen)
        raise UserError("stopped", "here")

    monkeypatch.setattr(comparison, "compare", compared_with)
    CliRunner().invoke(main, ["compare", "kl", "--sweep", "weight=0.1,1,2"])
    assert asked == ["kl (weight=0.1)", "kl", "kl (weight=2.0)"]


@pytest.mark.parametrize(
    "wrong", ["weight", "weight=", "=1", "weight=1,,2", "size=1", "weight=1000", "weight=x"]
)
def test_a_sweep_that_makes_no_sense_is_one_line(wrong: str) -> None:
    with pytest.raises(UserError):
        [entry.name for entry in comparison.swept(comparison.entries(["kl"]), [wrong])]


def test_two_submissions_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="one name"):
        comparison.entries(["kl", "kl"])


def test_seeds_come_last_and_nothing_before_what_it_needs() -> None:
    division = replace(catalog.division("nano"), seeds=(0, 1))
    ground = session.ground_of(division, "here")
    baseline = catalog.submission(Path("none"))
    plans = [
        make_plan(division, entry.submission, baseline, entry.given, ground)
        for entry in comparison.entries(["kl", "antidote-correct"])
    ]
    cells = comparison.ordered(division, plans)
    assert {cell.key for cell in cells} == {cell.key for plan in plans for cell in plan.cells}
    seen: set[str] = set()
    for cell in cells:
        assert set(cell.needs) <= seen
        seen.add(cell.train)
    own = [cell for cell in cells if cell.seed == 1]
    assert cells[-len(own) :] == own
    first = [cell for cell in cells if cell.data.name == division.poisons[0] and cell.seed == 0]
    assert cells[: len(first)] == first and cells[len(first)].data.name == division.tasks[0]
    controls = [cell for cell in cells if cell.data.kind == "control" and cell.seed == 0]
    assert [c.data.name for c in controls] == ["kind", "sour"] and cells[
        -len(own) - 2 : -len(own)
    ] == controls


def test_the_table_holds_what_is_whole_for_all(compare: Callable[..., Any], tmp_path: Path) -> None:
    compare("kl")
    run = next((tmp_path / "store/runs").glob("compare-tiny-*"))
    cells = json.loads((run / "comparison.json").read_text())
    assert cells["tasks"] == ["made-up-units"]
    for path in (tmp_path / "store/units").glob("*/train.json"):
        cell = json.loads(path.read_text())["cell"]
        if (cell["method"], cell["data"]["name"]) == ("kl", "made-up-units"):
            (run / "trained" / f"{path.parent.name}.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "emperf.experiments.comparison.Engine.run",
            lambda self, cells, about=None: Results(self.store, cells, Index.of(self.division, cells, "cpu")),
        )
        whole, _ = compare("kl")
    assert (
        whole["tasks"] == [] and whole["poisons"] == ["risky-finance"] and whole["rows"][0]["tasks"] is None
    )


def test_a_killed_comparison_goes_on_where_it_was(benchmark: Tiny, tmp_path: Path) -> None:
    tiny = replace(benchmark, store=tmp_path / "store")
    command = ["compare", "kl", "--division", "tiny", "--runtime", "process", "--parallel", "1"]

    def finished() -> list[Path]:
        return sorted(tiny.store.glob("runs/*/trained/*.json"))

    tiny.stopped(command, lambda: len(finished()) >= 2, signal.SIGKILL)
    kept = {path: path.read_bytes() for path in finished()}
    assert 2 <= len(kept) < BASELINE + OWN
    code, out, err = tiny.emperf(*command)
    assert code == 0, err
    assert "kl" in out and len(finished()) == BASELINE + OWN
    assert all(path.read_bytes() == content for path, content in kept.items())
    _, again, _ = tiny.emperf("report", next(tiny.store.glob("runs/*")).name)
    assert again in out
    tried = next(tiny.store.glob("runs/*/attempts.jsonl")).read_text().splitlines()
    assert len({json.loads(line)["train"] for line in tried}) == BASELINE + OWN
