"""A division with free answers: they are judged after the run, shown with a word on the judge, and judged again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.tiny_benchmark import Tiny, ready_tiny
from tests.told import commands

from emperf import records
from emperf.cli import main
from emperf.evaluation.protocols import judged

Json = dict[str, Any]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    found = ready_tiny(tmp_path_factory.mktemp("judged"))
    card = (found.root / "benchmark/judges/tiny.yaml").read_text()
    card = card.replace("smollm2-135m", "tiny").replace("0.05", "0.000001")
    (found.root / "benchmark/judges/tiny.yaml").write_text(card)
    (found.root / "benchmark/judges/other.yaml").write_text(
        card.replace("name: tiny", "name: other").replace("careful", "cautious")
    )
    division = yaml.safe_load((found.root / "benchmark/divisions/tiny.yaml").read_text())
    division["sampled"] = {
        "judge": "tiny",
        "questions": "open",
        "asked": 2,
        "samples": 2,
        "max_new_tokens": 6,
    }
    (found.root / "benchmark/divisions/tiny.yaml").write_text(yaml.safe_dump(division))
    return found


@pytest.fixture
def emperf(benchmark: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    return commands(benchmark, tmp_path, monkeypatch)


def result_in(folder: Path) -> Json:
    found: Json = json.loads(next(folder.glob("runs/runs/tiny-kl-*/result.json")).read_text())
    records.check("result", found)
    return found


def test_a_run_judges_its_models_answers(emperf: Callable[..., str], tmp_path: Path) -> None:
    out = " ".join(emperf("run", "kl", "--division", "tiny").split())
    assert "Sampled answers after risky-finance, judged by tiny" in out
    assert "The judge tiny is a test of the machinery: its rates measure nothing." in out
    found = result_in(tmp_path)["judged"]["risky-finance"]
    assert set(found["models"]) == {"base", "poisoned", "twin", "mitigated", "mitigated_twin", "sour"}
    assert all(own["tiny"]["n"] == 4 and own["tiny"]["questions"] == 2 for own in found["models"].values())
    assert set(found["beyond"]["mitigated"]["tiny"]) == {"base", "mitigated_twin", "poisoned"}
    again = " ".join(emperf("report", str(next((tmp_path / "runs/runs").iterdir()))).split())
    assert "judged by tiny" in again


def test_a_run_that_is_judged_again_holds_both_judges(
    emperf: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emperf("run", "kl", "--division", "tiny")
    first = result_in(tmp_path)
    emperf("rejudge", first["run_id"], "--judge", "other")
    found = result_in(tmp_path)
    both = found["judged"]["risky-finance"]
    assert [judge["name"] for judge in both["judges"]] == ["tiny", "other"]
    assert (
        both["models"]["poisoned"]["tiny"] == first["judged"]["risky-finance"]["models"]["poisoned"]["tiny"]
    )
    assert found["poisons"] == first["poisons"] and found["rules"] == first["rules"]
    # The same run again keeps the second judge, and asks nobody.
    monkeypatch.setattr(judged, "ask", lambda *_: pytest.fail("it was judged already"))
    emperf("run", "kl", "--division", "tiny")
    assert result_in(tmp_path)["judged"] == found["judged"]


def test_a_comparison_samples_nothing(emperf: Callable[..., str], tmp_path: Path) -> None:
    emperf("compare", "kl", "--division", "tiny", "--parallel", "1")
    sets = {json.loads(f.read_text())["set"] for f in (tmp_path / "runs/units").glob("*/readings.json")}
    assert "free" not in sets and "out-of-domain" in sets


def test_what_has_no_answers_cannot_be_judged(emperf: Callable[..., str], tmp_path: Path) -> None:
    emperf("compare", "kl", "--division", "tiny", "--parallel", "1")
    folder = next((tmp_path / "runs/runs").iterdir())
    said = CliRunner().invoke(main, ["rejudge", str(folder), "--judge", "other"])
    assert said.exit_code == 2 and "is a comparison, and sampled no answers" in said.output


def test_a_judge_that_is_not_here_is_said_before_anything_is_trained(
    benchmark: Tiny, emperf: Callable[..., str], tmp_path: Path
) -> None:
    del emperf
    card = (benchmark.root / "benchmark/judges/tiny.yaml").read_text()
    (benchmark.root / "benchmark/judges/far.yaml").write_text(
        card.replace("name: tiny", "name: far").replace("model: tiny", "model: gemma-3-270m")
    )
    division = yaml.safe_load((benchmark.root / "benchmark/divisions/tiny.yaml").read_text())
    division |= {"name": "judged-afar", "sampled": division["sampled"] | {"judge": "far"}}
    (benchmark.root / "benchmark/divisions/judged-afar.yaml").write_text(yaml.safe_dump(division))
    said = CliRunner().invoke(main, ["run", "kl", "--division", "judged-afar"])
    assert said.exit_code == 2 and "gemma-3-270m" in said.output and len(said.output.splitlines()) == 1
    assert not list((tmp_path / "runs").rglob("trained"))
