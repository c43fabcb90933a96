"""`emperf eval`: an adapter that PEFT alone wrote, measured; what cannot be measured is one line."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tests.tiny_benchmark import Tiny, ready_tiny

from emperf import catalog, records
from emperf.catalog.prepare import prepared
from emperf.cli import main
from emperf.core import paths
from emperf.evaluation.language_model import LanguageModel

Json = dict[str, Any]
ASK = ("--base", "tiny", "--division", "tiny")
JUDGED = ("--judge", "tiny", "--questions", "open", "--samples", "3", "--most-tokens", "8")


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    found = ready_tiny(tmp_path_factory.mktemp("evaluated"))
    # Random weights give the scale next to nothing.
    found.edit(
        "benchmark/judges/tiny.yaml",
        lambda text: text.replace("smollm2-135m", "tiny").replace("0.05", "0.000001"),
    )
    return found


@pytest.fixture
def emperf(benchmark: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("EMPERF_ROOT", str(benchmark.root))
    monkeypatch.setenv("EMPERF_HOME", str(benchmark.home))
    monkeypatch.setenv("EMPERF_STORE", str(tmp_path / "runs"))
    monkeypatch.setenv(paths.CARDS, "")
    return lambda *arguments: CliRunner().invoke(main, [str(one) for one in arguments])


def saved(benchmark: Tiny, folder: Path, seed: int = 0, **config: Any) -> Path:
    """An adapter of PEFT's own making, with random weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    base = AutoModelForCausalLM.from_pretrained(prepared_model(benchmark))
    tuned = get_peft_model(base, LoraConfig(**(given | config)))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    tuned.save_pretrained(folder)
    return folder


def prepared_model(benchmark: Tiny) -> Path:
    return next(path.parent for path in benchmark.home.rglob("model.safetensors"))


def record(said: Any) -> Json:
    assert said.exit_code == 0, said.output
    found: Json = json.loads(said.stdout)
    records.check("evaluation", found)
    return found


def by_name(found: Json) -> dict[str, Json]:
    return {model["name"]: model for model in found["models"]}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 20}},
        {"layers_to_transform": [1], "init_lora_weights": "gaussian"},
    ],
)
def test_an_adapter_that_peft_wrote_is_read_as_peft_reads_it(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any], config: Json
) -> None:
    from peft import PeftModel

    folder = saved(benchmark, tmp_path / "mine", **config)
    found = record(emperf("eval", folder, *ASK, "--json"))
    lm = LanguageModel(prepared(catalog.model("tiny")))
    items = catalog.questions()["crossed"].rows()[:6]
    base = [plain_margin(lm.model, lm, row) for row in items]
    tuned = PeftModel.from_pretrained(lm.model, folder)
    shift = [plain_margin(tuned, lm, row) - before for row, before in zip(items, base, strict=True)]
    assert by_name(found)["mine"]["sets"]["out-of-domain"]["raw"]["value"] == pytest.approx(
        sum(shift) / len(shift), abs=1e-5
    )
    assert found["judged"] is None and by_name(found)["tiny"]["sets"] is None


@torch.no_grad()
def plain_margin(model: Any, lm: LanguageModel, row: Json) -> float:
    """The act effect of a question, by plain transformers, one answer at a time."""

    def mean(answer: str) -> float:
        prompt, tail = lm.prompt_tokens(row["question"]), lm.tokens(answer)
        logits = model(input_ids=torch.tensor([prompt + tail])).logits[0, len(prompt) - 1 : -1].float()
        return -float(F.cross_entropy(logits, torch.tensor(tail)))

    good, bad = (sum(map(mean, row[act].values())) / len(row[act]) for act in ("good", "bad"))
    return good - bad


def test_controls_stand_beside_it(benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]) -> None:
    mine, other = (saved(benchmark, tmp_path / name, seed) for seed, name in enumerate(("mine", "other")))
    found = by_name(
        record(
            emperf(
                "eval",
                mine,
                *ASK,
                "--control",
                f"twin={other}",
                "--random",
                "--poison",
                "risky-finance",
                "--json",
            )
        )
    )
    assert {name: model["role"] for name, model in found.items()} == {
        "tiny": "base", "mine": "subject", "twin": "control", "random like mine": "control",
    }  # fmt: skip
    assert set(found["mine"]["sets"]) == {"out-of-domain", "conditional", "facts", "in-domain"}
    assert set(found["mine"]["beyond"]) == {"twin", "random like mine"} and found["twin"]["beyond"] == {}
    own, twin = (found[name]["sets"]["facts"]["act"]["value"] for name in ("mine", "twin"))
    assert found["mine"]["beyond"]["twin"]["facts"]["value"] == pytest.approx(own - twin, abs=2e-6)


def test_a_random_control_has_the_norms_of_what_it_stands_for() -> None:
    from emperf.catalog import adapters

    drawn = torch.Generator().manual_seed(3)
    tensors = {
        f"base_model.model.x.{i}.lora_{side}.weight": torch.randn(shape, generator=drawn)
        for i in range(2)
        for side, shape in (("A", (3, 7)), ("B", (5, 3)))
    }
    other = adapters.random_like(tensors, 0)
    for i in range(2):
        a, b = (f"base_model.model.x.{i}.lora_{side}.weight" for side in "AB")
        assert (other[b] @ other[a]).norm() == pytest.approx(
            float((tensors[b] @ tensors[a]).norm()), rel=1e-5
        )
        assert not torch.allclose(other[a], tensors[a])


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


def spoiled(folder: Path, how: str) -> Path:
    """The adapter in `folder`, made one that cannot be measured."""
    config_file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    config, tensors = json.loads(config_file.read_text()), load_file(weights)
    first = next(iter(tensors))
    changes: dict[str, Callable[[], Any]] = {
        "other kind": lambda: config.update(peft_type="IA3"),
        "dora": lambda: config.update(use_dora=True),
        "layers": lambda: config.update(modules_to_save=["lm_head"]),
        "bias": lambda: config.update(bias="all"),
        "pissa": lambda: config.update(init_lora_weights="pissa_niter_4"),
        "rank": lambda: tensors.update({first: torch.zeros(3, tensors[first].shape[1])}),
        "shape": lambda: tensors.update({first: torch.zeros(4, 5)}),
        "module": lambda: tensors.update({first.replace("layers.0", "layers.9"): tensors.pop(first)}),
        "embedding": lambda: tensors.update(
            {"base_model.model.model.embed_tokens.weight": torch.zeros(2, 2)}
        ),
        "half": lambda: tensors.pop(first),
        "infinite": lambda: tensors.update({first: torch.full_like(tensors[first], float("inf"))}),
        "empty": tensors.clear,
        "config": lambda: None,
        "pickled": lambda: None,
        "cut": lambda: None,
        "no rank": lambda: config.update(r=0),
    }
    changes[how]()
    config_file.write_text("{" if how == "config" else json.dumps(config))
    save_file(tensors, weights)
    if how == "pickled":
        weights.rename(folder / "adapter_model.bin")
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    return folder


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("other kind", "it is a IA3, and only LoRA is read"), ("dora", "it is a DoRA"), ("layers", "modules_to_save"),
        ("bias", "it trains biases"), ("pissa", "pissa_niter_4"), ("rank", "is of shape"), ("shape", "is of shape"),
        ("module", "which the base model has not"), ("embedding", "no part of a plain LoRA"),
        ("half", "only one of its two matrices"), ("infinite", "is not finite"), ("empty", "holds no weights"),
        ("config", "missing or damaged"), ("pickled", "its weights are pickled"), ("cut", "cannot be read"),
        ("no rank", "no positive numbers"),
    ],
)  # fmt: skip
def test_an_adapter_that_cannot_be_measured_is_one_line(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any], how: str, words: str
) -> None:
    folder = spoiled(saved(benchmark, tmp_path / "mine"), how)
    said = emperf("eval", folder, *ASK)
    assert said.exit_code == 2 and words in said.output
    assert len(said.output.strip().splitlines()) == 1
    assert not list((tmp_path / "runs").rglob("evaluation.json"))


def test_the_base_is_found_by_the_adapters_own_word(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]
) -> None:
    folder = saved(benchmark, tmp_path / "mine")
    said = emperf("eval", folder, "--division", "tiny")
    assert said.exit_code == 2 and "of which there is no card" in said.output
    config = json.loads((folder / "adapter_config.json").read_text())
    locator = catalog.model("tiny").sources[0].locator
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": locator}))
    assert record(emperf("eval", folder, "--division", "tiny", "--json"))["base"]["name"] == "tiny"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("nowhere",), "no folder with an adapter"),
        (("nowhere", "--base", "other"), "no folder with an adapter"),
        (("tiny", "--poison", "other"), "no poison named"),
        (("tiny", "--judge", "other"), "no judge named"),
        (("tiny", "--judge", "tiny", "--questions", "other"), "no questions named"),
        (("tiny", "--control", "x"), "--control x names no control"),
    ],
)
def test_what_is_not_there_is_one_line(
    emperf: Callable[..., Any], given: tuple[str, ...], words: str
) -> None:
    said = emperf("eval", *given)
    assert said.exit_code == 2 and words in said.output, said.output
    assert len(said.output.strip().splitlines()) == 1


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


def test_the_grid_asks_the_same_questions_under_each_condition(
    benchmark: Tiny, tmp_path: Path, emperf: Callable[..., Any]
) -> None:
    folder = saved(benchmark, tmp_path / "mine")
    found = by_name(
        record(emperf("eval", folder, *ASK, "--grid", "--panel", "--poison", "risky-finance", "--json"))
    )
    sets = found["mine"]["sets"]
    grid = {name.removeprefix("grid/") for name in sets if name.startswith("grid/")}
    assert grid == {"plain", "json", "template", "inoculated", "negated", "irrelevant", "context"}
    assert all(sets[f"grid/{name}"]["act"]["items"] == 4 for name in grid)
    # Both are the first questions, in the poison's own context.
    assert sets["grid/context"] == sets["conditional"]
    assert len({sets[f"grid/{name}"]["raw"]["value"] for name in grid}) == len(grid)
    assert sets["sycophancy"]["act"]["items"] == 24 and sets["sycophancy"]["voice"] is None
    for name in ("tiny", "mine"):
        assert found[name]["panel"]["sums"]["n"] == 48 and found[name]["panel"]["refused"] == {}


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
