"""A record is derived again from the store: what somebody wrote into the file is not believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from tests.tiny_benchmark import Tiny, ready_tiny
from tests.told import Told

from emperf import catalog
from emperf.catalog.prepare import prepared
from emperf.cli import main
from emperf.experiments import comparison, session
from emperf.experiments.run import run
from emperf.experiments.session import Choice
from emperf.report.progress import Progress

Json = dict[str, Any]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return ready_tiny(tmp_path_factory.mktemp("derive"))


@pytest.fixture
def finished(benchmark: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """The file that an experiment with kl left, by the kind of experiment."""
    monkeypatch.setenv("EMPERF_ROOT", str(benchmark.root))
    monkeypatch.setenv("EMPERF_HOME", str(benchmark.home))
    runtime = Told(prepared(catalog.model("tiny")))
    monkeypatch.setattr(session, "choose_runtime", lambda *_: Choice(runtime, {}, "told", "told"))
    division, store = catalog.division("tiny"), tmp_path / "store"

    def finish(kind: str) -> Path:
        given: Json = {"runtime": "auto", "store": store, "watch": Progress(), "say": print}
        if kind == "result":
            _, folder = run(division, Path("kl"), {}, **given)
        else:
            _, folder = comparison.compare(division, comparison.entries(["kl"]), parallel=1, **given)
        return folder / f"{kind}.json"

    return finish


def edited(path: Path, change: Callable[[Json], Any]) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def report(path: Path, *arguments: str) -> tuple[int, str, str]:
    said = CliRunner().invoke(main, ["report", str(path.parent), *arguments])
    return said.exit_code, said.stdout, said.stderr


def claim(found: Json) -> None:
    found["division"]["name"], found["certifiable"] = "nano", True
    found["runtime"] |= {"runtime": "docker"}
    found["cells"][0]["wall_s"] = 0.001
    found["poisons"][0]["removal"]["left"]["value"] = 0.03


@pytest.mark.parametrize("kind", ["result", "comparison"])
def test_an_untouched_record_is_shown_without_a_word(finished: Callable[[str], Path], kind: str) -> None:
    path = finished(kind)
    code, out, err = report(path, "--json")
    assert (code, err) == (0, "") and json.loads(out) == json.loads(path.read_text())


def test_what_was_edited_is_named_and_the_stores_own_is_shown(finished: Callable[[str], Path]) -> None:
    path = finished("result")
    before = json.loads(path.read_text())
    edited(path, claim)
    code, out, err = report(path, "--json")
    shown = json.loads(out)
    assert code == 1 and all(
        place in err for place in ("division.name", "certifiable", "cells.0.wall_s", "removal.left.value")
    )
    for part in ("division", "certifiable", "cells", "poisons"):
        assert shown[part] == before[part]


def test_a_row_of_a_comparison_that_was_edited_is_named(finished: Callable[[str], Path]) -> None:
    path = finished("comparison")
    edited(path, lambda found: found["rows"][0]["overhead"]["time"].update(value=0.5))
    code, _, err = report(path)
    assert code == 1 and "rows.0.overhead.time.value" in err


def test_a_record_whose_store_is_gone_is_one_line(finished: Callable[[str], Path]) -> None:
    path = finished("result")
    for unit in (path.parents[2] / "units").iterdir():
        unit.rename(unit.with_name(f".damaged-{unit.name}"))
    code, _, err = report(path)
    assert code == 2 and "has not all readings any more" in err and err.count("\n") == 1


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"about": {}}'])
def test_a_damaged_run_file_is_one_line(finished: Callable[[str], Path], damage: str) -> None:
    path = finished("result")
    path.with_name("run.json").write_text(damage)
    code, _, err = report(path)
    assert code == 2 and err.count("\n") == 1 and "run.json is damaged" in err


def nothing_trains(*_: Any) -> Any:
    raise AssertionError("nothing is to be trained")


@pytest.mark.parametrize("kind", ["result", "comparison"])
def test_rescore_reads_again_what_another_protocol_would_read_and_trains_nothing(
    finished: Callable[[str], Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = finished(kind)
    before = json.loads(path.read_text())
    monkeypatch.setattr(Told, "run", nothing_trains)
    # Another key of what reads, as another protocol's code gives.
    monkeypatch.setattr("emperf.execute.results.reading_place", lambda device: "elsewhere")
    said = CliRunner().invoke(main, ["rescore", path.parent.name, "--store", str(path.parents[2])])
    assert said.exit_code == 0, said.output
    again = json.loads(next(path.parents[1].glob(f"*-rescored/{kind}.json")).read_text())
    part = "poisons" if kind == "result" else "rows"
    assert again[part] == before[part] and again["run_id"] == f"{before['run_id']}-rescored"
    keys = {p.parent.name for p in path.parents[2].glob("units/*/readings.json")}
    assert len(keys) == 2 * len({*reading_keys(path.parent / "run.json")})


def reading_keys(path: Path) -> list[str]:
    index = json.loads(path.read_text())["readings"]
    return [ref[2] for part in index.values() for refs in part.values() for ref in refs]


def test_rescore_without_the_weights_is_one_line(finished: Callable[[str], Path]) -> None:
    path = finished("result")
    for trained in path.parents[2].glob("units/*/train.json"):
        trained.unlink()
    said = CliRunner().invoke(main, ["rescore", str(path.parent)])
    assert said.exit_code == 2 and "has no weights any more of" in said.stderr
    assert said.stderr.count("\n") == 1


def test_export_has_a_row_for_every_answer_that_was_read(
    finished: Callable[[str], Path], tmp_path: Path
) -> None:
    path = finished("result")
    files = {name: tmp_path / f"readings.{name}" for name in ("csv", "parquet")}
    options = [part for name, file in files.items() for part in (f"--{name}", str(file))]
    said = CliRunner().invoke(main, ["export", str(path.parent), *options])
    assert said.exit_code == 0, said.output
    table, other = pd.read_csv(files["csv"]), pd.read_parquet(files["parquet"])
    assert len(table) == len(other) and list(table.columns) == list(other.columns)
    one = table[(table.method == "kl") & (table.kind == "poison") & (table.set == "out-of-domain")]
    assert len(one) == 6 * 4 and set(one.act) == {"good", "bad"} and set(one.voice) == {"kind", "sour"}
    whole = json.loads(path.read_text())["poisons"][0]["sets"]["out-of-domain"]["mitigated"]["raw"]["value"]
    base = table[(table.method == "base") & (table.set == "out-of-domain")]

    def act(part: pd.DataFrame) -> float:
        means = part.groupby(["item", "act"]).logp.mean().unstack()
        return float((means.good - means.bad).mean())

    assert act(one) - act(base) == pytest.approx(whole, abs=1e-5)
    assert len(table[table.set == "task"]) == 3 * 4
