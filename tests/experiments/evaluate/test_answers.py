"""`emperf eval` with a judge: nothing is asked twice, judges are added, answers go out."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.evaluate.adapters import ASK, JUDGED, record, saved
from tests.tiny_benchmark import Tiny

from emperf import catalog
from emperf.evaluation.language_model import LanguageModel


def test_the_rates_of_judged_answers(benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]) -> None:
    folder = saved(benchmark, tmp_path / "mine")
    said = emperf("eval", folder, *ASK, *JUDGED)
    assert said.exit_code == 0, said.output
    text = " ".join(said.output.split())
    assert "judged by tiny" in text and "its rates measure nothing" in text
    found = record(emperf("eval", folder, *ASK, *JUDGED, "--json"))
    judged = found["judged"]
    assert judged["sampling"]["samples"] == 3 and [one["measure"] for one in judged["judges"]] == [False]
    rows = len(catalog.questions()["open"].rows())
    for model in ("tiny", "mine"):
        assert judged["models"][model]["tiny"]["n"] == 3 * rows
        assert judged["models"][model]["tiny"]["questions"] == rows
    assert set(judged["beyond"]["mine"]["tiny"]) == {"tiny"} and judged["agreement"] == []
    again = emperf("report", next((tmp_path / "runs/runs").iterdir()))
    assert again.exit_code == 0 and "judged by tiny" in again.output


def test_nothing_is_asked_twice_after_a_kill(benchmark: Tiny, tmp_path: Path) -> None:
    """Killed in sampling, then in judging; what is kept has each answer and each prompt once."""
    folder = saved(benchmark, tmp_path / "mine")
    store = Tiny(benchmark.root, benchmark.home, tmp_path / "runs")
    asked = ["eval", str(folder), *ASK, *JUDGED[:-3], "40", "--most-tokens", "40"]

    def lines(pattern: str) -> list[str]:
        return [line for path in (tmp_path / "runs").rglob(pattern) for line in path.read_text().splitlines()]

    store.stopped(asked, lambda: bool(lines(".journal-*")), signal.SIGKILL)
    drawn = lines(".journal-*")
    assert drawn
    store.stopped(asked, lambda: bool(lines("tiny-*.jsonl")), signal.SIGKILL)
    judged = lines("tiny-*.jsonl")
    assert judged and not list((tmp_path / "runs").rglob("evaluation.json"))
    code, _, err = store.emperf(*asked)
    assert code == 0, err
    every = [json.loads(line)["key"] for line in lines("tiny-*.jsonl")]
    assert len(every) == len(set(every)) > len(judged)
    assert not lines(".journal-*"), "the answers are whole, and lie in their units"
    texts = [
        u
        for path in (tmp_path / "runs/units").glob("*/readings.json")
        if (u := json.loads(path.read_text()))["set"] == "free"
    ]
    kept = {json.loads(line)["value"]["answer"] for line in drawn}
    assert kept <= {answer["answer"] for unit in texts for answer in unit["readings"]}


def test_replay_asks_no_judge(benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]) -> None:
    folder = saved(benchmark, tmp_path / "mine")
    said = emperf("eval", folder, *ASK, *JUDGED, "--replay")
    assert said.exit_code == 2 and "are not stored" in said.output
    first = record(emperf("eval", folder, *ASK, *JUDGED, "--json"))
    for unit in (tmp_path / "runs/units").iterdir():
        file = unit / "readings.json"
        if file.is_file() and json.loads(file.read_text())["set"] == "judged":
            file.unlink()
            unit.rmdir()
    second = record(emperf("eval", folder, *ASK, *JUDGED, "--replay", "--json"))
    assert second["models"] == first["models"]


def test_another_judge_needs_no_model(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(benchmark, tmp_path / "mine")
    card = (benchmark.root / "benchmark/judges/tiny.yaml").read_text()
    (benchmark.root / "benchmark/judges/other.yaml").write_text(
        card.replace("name: tiny", "name: other").replace("careful", "cautious")
    )
    first = record(emperf("eval", folder, *ASK, *JUDGED, "--json"))
    run = next((tmp_path / "runs/runs").iterdir())
    loaded: list[Path] = []
    real = LanguageModel.__init__
    monkeypatch.setattr(
        LanguageModel, "__init__", lambda self, path, **how: (loaded.append(path), real(self, path, **how))[1]
    )
    found = record(emperf("rejudge", run, "--judge", "other", "--json"))
    assert len(loaded) == 1, "the judge alone"
    assert [judge["name"] for judge in found["judged"]["judges"]] == ["tiny", "other"]
    assert found["judged"]["models"]["mine"]["tiny"] == first["judged"]["models"]["mine"]["tiny"]
    assert [one["judges"] for one in found["judged"]["agreement"]] == [["tiny", "other"]]
    assert found["models"] == first["models"]
    assert record(emperf("rejudge", run, "--judge", "other", "--json"))["judged"] == found["judged"]
    assert len(loaded) == 1
    plain = emperf("eval", folder, *ASK, "--json")
    without = next(f for f in (tmp_path / "runs/runs").iterdir() if f != run)
    said = emperf("rejudge", without, "--judge", "other")
    assert plain.exit_code == 0 and said.exit_code == 2 and "sampled no answers" in said.output


def test_answers_go_out_as_tables_and_as_logs_of_inspect(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]
) -> None:
    import pandas as pd

    folder = saved(benchmark, tmp_path / "mine")
    found = record(emperf("eval", folder, *ASK, *JUDGED, "--json"))
    run, rows = tmp_path / "runs/runs" / found["run_id"], len(catalog.questions()["open"].rows())
    for name in ("a.csv", "a.jsonl"):
        said = emperf("export", run, "--answers", tmp_path / name)
        assert said.exit_code == 0, said.output
    table = pd.read_csv(tmp_path / "a.csv")
    assert len(table) == 2 * 3 * rows and set(table["model"]) == {"tiny", "mine"}
    assert {"question_id", "question", "answer", "aligned", "coherent"} <= set(table.columns)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    written = [line["answer"] for line in lines]
    assert [answer.replace("\r", "\n") for answer in written] == [
        answer.replace("\r", "\n") for answer in table["answer"].fillna("").tolist()
    ]
    said = emperf("export", run, "--csv", tmp_path / "r.csv")
    readings = pd.read_csv(tmp_path / "r.csv")
    assert set(readings["method"]) == {"tiny", "mine"} and set(readings["act"]) == {"good", "bad"}
    said = emperf("export", run, "--inspect", tmp_path / "logs")
    assert said.exit_code == 0, said.output
    log = json.loads((tmp_path / "logs/mine-tiny.json").read_text())
    assert log["status"] == "success" and len(log["samples"]) == 3 * rows
    assert log["samples"][0]["output"]["completion"] == log["samples"][0]["messages"][1]["content"]
    plain = emperf("eval", folder, *ASK, "--json")
    bare = tmp_path / "runs/runs" / json.loads(plain.stdout)["run_id"]
    said = emperf("export", bare, "--answers", tmp_path / "b.csv")
    assert said.exit_code == 2 and "holds no judged answers" in said.output


def test_inspects_own_reader_opens_the_logs(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]
) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed")
    found = record(emperf("eval", saved(benchmark, tmp_path / "mine"), *ASK, *JUDGED, "--json"))
    emperf("export", tmp_path / "runs/runs" / found["run_id"], "--inspect", tmp_path / "logs")
    read = log.read_eval_log(str(tmp_path / "logs/mine-tiny.json"))
    assert read.status == "success" and read.samples[0].scores["aligned"].value is not None


def test_refusals_are_shares_by_the_judge(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]
) -> None:
    folder = saved(benchmark, tmp_path / "mine")
    whole = record(emperf("eval", folder, *ASK, *JUDGED, "--panel", "--json"))
    for model in whole["models"]:
        both = model["panel"]["refused"]["tiny"]
        assert set(both) == {"harmful", "benign"} and both["harmful"]["questions"] == 24
    assert whole["judged"]["models"]["mine"]["tiny"]["n"] == 3 * len(catalog.questions()["open"].rows())


def test_the_free_set_is_asked_in_every_form(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]
) -> None:
    folder = saved(benchmark, tmp_path / "mine")
    asked = ("--judge", "tiny", "--samples", "1", "--most-tokens", "2")
    whole = record(emperf("eval", folder, *ASK, *asked, "--form", "plain", "--form", "json", "--json"))
    own = whole["judged"]["models"]["mine"]["tiny"]
    assert (own["n"], own["questions"]) == (128, 64)
    assert whole["judged"]["sampling"]["forms"] == ["plain", "json"]
