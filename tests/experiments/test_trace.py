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
from tests.synthetic import Run, free_of, readings
from tests.tiny_benchmark import Tiny, ready_tiny

from emperf import catalog
from emperf.catalog.sets import DOMAIN, OOD
from emperf.evaluation.drift import drift
from emperf.report.tracing import NAMES, sentences
from emperf.scoring.trace import act, drop, summarise
from emperf.training.job import Lora

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
    return drop({2 * i: shift + spread * rng.standard_normal((1, 50)) for i, shift in enumerate(shifts)})


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


def scored(
    poison: float, twin: float, shrinkage: float
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(the traced cell's scores, its twin's, the base model's): half of the shifts after 2 of 4 steps."""
    rng = np.random.default_rng(4)
    margins = {name: rng.normal(0.8, 1.0, 30) for name in (OOD, DOMAIN)}
    zero = {name: readings(name, found, 0.1) for name, found in margins.items()}

    def of(shift: float, slope: float) -> dict[str, Any]:
        """Both sets fall by the same, in-domain twice as far."""

        def read(part: float) -> dict[str, Any]:
            out = {}
            for name, times in ((OOD, 1), (DOMAIN, 2)):
                noise = free_of(margins[name], rng.normal(0, 0.05, 30))
                moved = times * shift + slope * margins[name] + noise
                out[name] = readings(name, margins[name] + part * moved, 0.1 + part)
            return out

        drifted = {"2": {"norm": 1.0, "rotation": 0.5}, "final": {"norm": 2.0, "rotation": None}}
        return {
            "checkpoints": {"2": read(0.5)},
            "readings": read(1.0),
            "drift": drifted,
            "gradient_norms": [1.0] * 4,
        }

    return of(poison, shrinkage), of(twin, 0.0), {"readings": zero}


@pytest.mark.parametrize("with_twin", [True, False])
def test_points_are_act_shifts_beyond_the_twin_at_margin_zero(with_twin: bool) -> None:
    scores, twin, base = scored(-0.4, 0.1, shrinkage=-0.3)
    found = summarise(scores, twin if with_twin else None, base, 4, 10)["points"]
    d = -0.5 if with_twin else -0.4
    assert [p["steps"] for p in found] == [0, 2, 4]
    assert [p["em"]["value"] for p in found] == pytest.approx([0, d / 2, d], abs=1e-6)
    assert [p["in_domain"]["value"] for p in found] == pytest.approx([0, d, 2 * d], abs=1e-6)
    assert found[0]["em"]["low"] == 0 and found[-1]["em"]["items"] == 30
    assert [p["gradient_norm"]["steps"] for p in found] == [0, 2, 2]


def test_a_trace_of_a_voice_or_of_shrinkage_shows_no_em() -> None:
    scores, _, base = scored(0.0, 0.0, shrinkage=-0.5)
    found = summarise(scores, None, base, 4, 10)
    assert found["points"][-1]["em"]["low"] < 0 < found["points"][-1]["em"]["high"]
    assert not found["transition"]["drop"]["told"]
    raw = np.array([r["good"]["kind"] - r["bad"]["kind"] for r in scores["readings"][OOD]])
    start = np.array([r["good"]["kind"] - r["bad"]["kind"] for r in base["readings"][OOD]])
    assert (raw - start).mean() < -0.2


def test_the_made_up_run_has_one_shift_in_trace_and_result() -> None:
    made = Run()
    poison, twin = (made.scores[c.key]["readings"] for c in made.plan.cells if c.method == "none" and
                    c.data.kind in ("poison", "twin"))  # fmt: skip
    assert act(poison, twin, made.zero, OOD).mean() == pytest.approx(-0.5)


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
    assert [p["steps"] for p in points if p["rotation"]["value"] is not None] == [1, 2, 3]
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
    # The poison and its twin, each once.
    tried = [json.loads(line)["train"] for line in (folder / "attempts.jsonl").read_text().splitlines()]
    assert len(tried) == len(set(tried)) == 2 and trace["cell"] in tried


def check_the_end_by_hand(tiny: Tiny, trace: dict[str, Any], values: int | None) -> None:
    cell = tiny.store / "units" / trace["cell"]
    trained = json.loads((cell / "train.json").read_text())
    assert trace["points"][-1]["steps"] == trained["record"]["steps"] == len(trained["gradient_norms"])
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
            "EMPERF_UPSTREAM",
        ),
        (("trace", "risky", "--division", "tiny", "--organism", "full"), "no poison named 'risky'"),
    ],
)
def test_what_users_get_wrong_is_one_line(tiny: Tiny, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = tiny.emperf(*arguments)
    assert code == 2 and words in err and err.count("\n") == 1
