"""`emperf trace`: drift worked out by hand, the command for adapters and for all weights, what users get wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from emperf import catalog
from emperf.evaluation.drift import drift
from emperf.report.tracing import NAMES, sentences
from emperf.scoring.estimate import Resampler
from emperf.scoring.poisons import OOD
from emperf.scoring.trace import drop
from emperf.training.job import Lora
from tests.tiny_benchmark import Tiny, ready_tiny

RANK_1 = Lora(r=1, alpha=1)
LAYER = "base_model.model.model.layers.{}.mlp.down_proj.lora_{}.weight"


def adapter(path: Path, *vectors: list[float]) -> Path:
    """B of the layers in turn; A is large, and must not matter."""
    tensors = {LAYER.format(i, "B"): torch.tensor(vector)[:, None] for i, vector in enumerate(vectors)}
    tensors |= {LAYER.format(i, "A"): torch.full((1, 3), 100.0) for i in range(len(vectors))}
    save_file(tensors, path)
    return path


def test_norm_and_rotation_of_vectors_known_by_hand(tmp_path: Path) -> None:
    way = [([3.0, 0.0], [4.0]), ([3.0, 5.0], [4.0]), ([3.0, 10.0], [4.0]), ([3.0, 5.0], [4.0])]
    files = [adapter(tmp_path / f"{i}.safetensors", *vectors) for i, vectors in enumerate(way)]
    found = drift({8: files[2], 2: files[0], 4: files[1]}, files[3], RANK_1, tmp_path)
    assert list(found) == ["2", "4", "8", "final"]
    assert [found[step]["norm"] for step in found] == pytest.approx([5, 50**0.5, 125**0.5, 50**0.5])
    assert [found[step]["rotation"] for step in found] == [
        pytest.approx(0),
        pytest.approx(1),
        pytest.approx(-1),
        None,
    ]


def test_a_vector_that_stands_still_has_no_rotation(tmp_path: Path) -> None:
    files = [adapter(tmp_path / f"{i}.safetensors", [1.0, 1.0]) for i in range(2)]
    found = drift({1: files[0]}, files[1], RANK_1, tmp_path)
    assert found == {name: {"norm": pytest.approx(2**0.5), "rotation": None} for name in ("1", "final")}
    assert drift({}, files[0], RANK_1, tmp_path) == {"final": found["final"]}


def test_all_weights_drift_from_the_base_models(tmp_path: Path) -> None:
    base = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[5.0]])}
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": base["a"]}, folder / "model-1.safetensors")
    save_file({"b": base["b"]}, folder / "model-2.safetensors")
    save_file({"a": base["a"] + torch.tensor([3.0, 0.0]), "b": base["b"]}, tmp_path / "one")
    save_file({"a": base["a"] + torch.tensor([3.0, 0.0]), "b": base["b"] + 4}, tmp_path / "two")
    assert drift({1: tmp_path / "one"}, tmp_path / "two", None, folder) == {
        "1": {"norm": 3.0, "rotation": 0.0},
        "final": {"norm": 5.0, "rotation": None},
    }


def fall(*shifts: float, spread: float = 0.0) -> dict[str, Any]:
    """The drop of EM shifts that are `shifts` on average, two steps apart, each with its own noise over questions."""
    rng = np.random.default_rng(1)
    after = {2 * i: {OOD: shift + spread * rng.standard_normal((1, 50))} for i, shift in enumerate(shifts)}
    return drop(Resampler({OOD: 50}, 1), after)


def test_a_drop_is_told_only_where_the_intervals_allow_it() -> None:
    clear = fall(0.0, -0.1, -1.0, -1.1, spread=0.1)
    assert clear["told"] and (clear["after"], clear["until"]) == (2, 4) and clear["fastest_in"] == 1
    even = fall(0.0, -0.5, -1.0, -1.5, spread=0.5)
    assert not even["told"] and even["fall"]["high"] < 0 and even["fastest_in"] < 0.95
    none = fall(0.0, 0.0, 0.01, 0.0, spread=0.5)
    assert not none["told"] and none["fall"]["high"] > 0
    last = {"in_domain": {"value": 0.0, "low": -1.0, "high": 1.0}}
    for found, words in (
        (clear, "EM came fastest in steps 2 to 4"),
        (even, "cannot be told"),
        (none, "holds zero"),
    ):
        trace = {"points": [last], "transition": {"drop": found, "turn": None}}
        assert words in sentences(trace)[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = ready_tiny(tmp_path_factory.mktemp("trace"))

    def with_organisms(text: str) -> str:
        rank_1 = {
            "lora": {"r": 1, "alpha": 4, "layers": [1], "modules": ["down_proj"]},
            "learning_rate": 0.01,
        }
        organisms = {"rank-1": rank_1, "full": {"lora": None, "learning_rate": 0.001}}
        return yaml.safe_dump(yaml.safe_load(text) | {"organisms": organisms})

    made.edit("benchmark/divisions/tiny.yaml", with_organisms)
    return made


def command(organism: str, points: int = 4) -> tuple[str, ...]:
    return ("trace", "risky-finance", "--division", "tiny", "--organism", organism, "--points", str(points),
            "--runtime", "process")  # fmt: skip


@pytest.mark.parametrize(("organism", "values"), [("rank-1", 32), ("full", None)])
def test_a_trace_is_measured_shown_drawn_and_kept(
    tiny: Tiny, organism: str, values: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPERF_ROOT", str(tiny.root))
    code, out, err = tiny.emperf(*command(organism))
    assert code == 0, err
    folder = next(tiny.store.glob(f"runs/trace-tiny-risky-finance-{organism}-*"))
    trace = json.loads((folder / "trace.json").read_text())
    catalog.check("trace", trace)
    points = trace["points"]
    assert [point["steps"] for point in points] == [0, 1, 2, 3, 4]
    # The warm-up's first step has a rate of zero, so nothing has changed after it.
    assert [p["steps"] for p in points if p["rotation"]["value"] is not None] == [2, 3]
    assert all((point["em"]["items"], point["in_domain"]["items"]) == (6, 4) for point in points)
    assert points[0]["em"]["value"] == points[0]["weight_norm"]["value"] == 0
    assert [point["gradient_norm"]["steps"] for point in points] == [0, 1, 1, 1, 1]
    check_the_end_by_hand(tiny, trace, values)
    drawn, labels = (folder / "trace.svg").read_text(), NAMES.values()
    assert all(label in out and label in drawn for label in labels) and "optimizer steps" in drawn
    said = " ".join(out.split())
    assert "as the container says" in said and "The weights turned most at step" in said
    assert "vega" in (folder / "trace.html").read_text()
    before = (folder / "trace.json").read_bytes()
    code, again, _ = tiny.emperf(*command(organism))
    assert code == 0 and (folder / "trace.json").read_bytes() == before
    assert out.splitlines()[-12:] == again.splitlines()[-12:]
    assert len((folder / "attempts.jsonl").read_text().splitlines()) == 1


def check_the_end_by_hand(tiny: Tiny, trace: dict[str, Any], values: int | None) -> None:
    cell = tiny.store / "cells" / trace["cell"]
    record, scores = (json.loads((cell / f"{name}.json").read_text()) for name in ("record", "scores"))
    assert trace["points"][-1]["steps"] == record["steps"] == len(scores["gradient_norms"])
    weights = load_file(next(cell.glob("*.safetensors")))
    if values:
        parts = [tensor for name, tensor in weights.items() if "lora_B" in name]
    else:
        base = load_file(tiny.root.parent / "model/model.safetensors")
        parts = [weights[name] - base[name] for name in base]
    v = torch.cat([part.flatten() for part in parts])
    end = trace["points"][-1]["weight_norm"]
    assert end["values"] == len(v) and (values is None or len(v) == values)
    assert end["value"] == pytest.approx(float(v.norm()), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (command("rank-9"), "no organism named 'rank-9'. Choose one of: full, rank-1."),
        (command("rank-1", points=1), "Choose --points between 2 and 4."),
        (command("rank-1", points=5), "5 points cannot be made of 4 steps"),
        (("trace", "risky-finance", "--division", "smoke"), "smoke division has no organism"),
        (
            ("trace", "risky-finance-upstream", "--division", "tiny", "--organism", "full"),
            "no rows of the project's own",
        ),
        (("trace", "risky", "--division", "tiny", "--organism", "full"), "no poison named 'risky'"),
    ],
)
def test_what_users_get_wrong_is_one_line(tiny: Tiny, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = tiny.emperf(*arguments)
    assert code == 2 and words in err and err.count("\n") == 1
