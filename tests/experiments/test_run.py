"""`emperf run` from end to end on a benchmark in miniature: results, resuming, reuse, and what users get wrong."""

import json
import shutil
import signal
from pathlib import Path

import pytest
from tests.tiny_benchmark import Tiny, ready_tiny

from emperf import catalog

RUN = ("run", "kl", "--division", "tiny", "--runtime", "process")
CELLS = 7


@pytest.fixture(scope="module")
def tiny_benchmark(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return ready_tiny(tmp_path_factory.mktemp("tiny"))


def records(tiny: Tiny) -> list[Path]:
    return sorted(tiny.store.glob("runs/*-kl-*/trained/*.json"))


def result(tiny: Tiny, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        next(tiny.store.glob(f"runs/tiny-{name}-*/result.json")).read_text()
    )
    return found


def test_a_run_that_is_killed_and_interrupted_goes_on_and_loses_one_cell(tiny_benchmark: Tiny) -> None:
    tiny = tiny_benchmark
    code, _ = tiny.stopped(RUN, lambda: len(records(tiny)) >= 1, signal.SIGKILL)
    assert code == -signal.SIGKILL
    kept = {path: path.read_bytes() for path in records(tiny)}
    assert 1 <= len(kept) < CELLS
    code, err = tiny.stopped(RUN, lambda: len(records(tiny)) > len(kept), signal.SIGINT)
    assert code == 130 and "to go on" in err and "Traceback" not in err
    code, out, err = tiny.emperf(*RUN)
    assert code == 0, err
    assert len(records(tiny)) == CELLS
    assert all(path.read_bytes() == before for path, before in kept.items())
    assert not list(tiny.store.rglob(".partial-*"))
    assert not list((tiny.store / "work").rglob("job.json"))
    whole = result(tiny, "kl")
    catalog.check("result", whole)
    assert whole["status"] == "complete"
    assert "kl" in out and "made-up-units" in out and str(tiny.store / "runs") in out.replace("\n", "")


def test_a_finished_run_is_printed_again_without_a_new_cell(tiny_benchmark: Tiny) -> None:
    before = [path.stat().st_mtime_ns for path in records(tiny_benchmark)]
    code, _, _ = tiny_benchmark.emperf(*RUN)
    assert code == 0 and [path.stat().st_mtime_ns for path in records(tiny_benchmark)] == before
    run_id = next(tiny_benchmark.store.glob("runs/*-kl-*")).name
    code, again, _ = tiny_benchmark.emperf("report", run_id)
    assert code == 0 and "made-up-units" in again
    code, raw, _ = tiny_benchmark.emperf("report", run_id, "--json")
    assert code == 0 and json.loads(raw)["run_id"] == run_id


def test_a_second_submission_reuses_the_baselines_scores_and_measures_its_times_again(
    tiny_benchmark: Tiny,
) -> None:
    tiny = tiny_benchmark
    scored = {path: path.stat().st_mtime_ns for path in tiny.store.glob("units/*/*.json")}
    code, _, err = tiny.emperf(*RUN, "--set", "weight=0.25")
    assert code == 0, err
    after = {path: path.stat().st_mtime_ns for path in tiny.store.glob("units/*/*.json")}
    assert {path: after[path] for path in scored} == scored
    trained = {path.parent for path in after if path.name == "train.json"}
    assert len(trained) == len({path.parent for path in scored if path.name == "train.json"}) + 3
    runs = sorted(tiny.store.glob("runs/*-kl-*"))
    assert len(runs) == 2 and all(len(list(run.glob("trained/*.json"))) == CELLS for run in runs)


BAD = {
    "diverges": (
        "    def loss(self, step):\n        return step.task_loss * float('inf')\n",
        "diverged",
        "the loss is",
    ),
    "raises": (
        "    def loss(self, step):\n        raise RuntimeError('boom')\n",
        "broke-contract",
        "Plain.loss failed at step 0",
    ),
    "silent": ("    def loss(self, step):\n        __import__('os')._exit(0)\n", "broke-contract", "missing"),
    "pickles": (
        "    def finish(self, context):\n        open('/out/weights.pt', 'wb').write(b'x')\n",
        "broke-contract",
        "safetensors",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_failing_mitigation_costs_its_own_cells_alone(
    tiny_benchmark: Tiny, tmp_path: Path, name: str
) -> None:
    body, kind, words = BAD[name]
    folder = tmp_path / name
    shutil.copytree(tiny_benchmark.root / "reference_impls/none", folder)
    (folder / "mitigation.py").write_text(
        f"from emperf.training import Mitigation\n\n\nclass Plain(Mitigation):\n{body}"
    )
    text = (folder / "submission.yaml").read_text()
    (folder / "submission.yaml").write_text(text.replace("name: none", f"name: {name}"))
    if name == "pickles" and shutil.which("bwrap") is None:
        pytest.skip("without bubblewrap /out is no path of the sandbox")
    code, out, err = tiny_benchmark.emperf("run", str(folder), *RUN[2:])
    assert code == 1 and "Traceback" not in out + err
    found = result(tiny_benchmark, name)
    failures = [cell["failure"] for cell in found["cells"]]  # type: ignore[attr-defined]
    failed = [failure for failure in failures if failure]
    assert len(failed) == 3 and {f["kind"] for f in failed} == {kind}
    assert all(words in f["detail"] for f in failed)
    assert found["status"] == "incomplete"
    assert all(entry["mitigated"] is None for entry in found["tasks"])  # type: ignore[attr-defined]
    assert kind in out


@pytest.fixture
def copy(tiny_benchmark: Tiny, tmp_path: Path) -> Tiny:
    """A benchmark to break: its own folders, no runs."""
    shutil.copytree(tiny_benchmark.root, tmp_path / "root")
    shutil.copytree(tiny_benchmark.home, tmp_path / "home")
    return Tiny(tmp_path / "root", tmp_path / "home", tmp_path / "store")


def complains(tiny: Tiny, words: list[str], *arguments: str) -> None:
    code, out, err = tiny.emperf(*(arguments or RUN))
    assert code == 2, out + err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err
    assert all(word in err for word in words), err
    assert not list(tiny.store.rglob("readings.json"))


def test_an_altered_dataset_stops_the_run_before_its_first_cell(copy: Tiny) -> None:
    copy.edit(
        "benchmark/poisons/risky-finance/train.jsonl", lambda text: text.replace("savings", "saving", 1)
    )
    complains(copy, ["train.jsonl", "sha256", "Restore"])


def test_an_altered_model_is_found_out(copy: Tiny) -> None:
    weights = next(copy.home.glob("models/*/model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    complains(copy, ["has other weights than its card names", "emperf prepare tiny"])


def test_an_altered_configuration_of_the_model_is_found_out(copy: Tiny) -> None:
    config = next(copy.home.glob("models/*/config.json"))
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 0.1'))
    complains(copy, ["not the pinned one", "emperf prepare tiny"])


def test_a_model_that_is_not_there_says_how_to_get_it(copy: Tiny) -> None:
    shutil.rmtree(copy.home)
    complains(copy, ["not prepared", "emperf prepare tiny"])


def test_an_unknown_division_names_the_known_ones(copy: Tiny) -> None:
    complains(copy, ["'huge'", "smoke", "tiny"], "run", "kl", "--division", "huge")


def test_a_malformed_submission_names_file_and_fix(copy: Tiny) -> None:
    copy.edit(
        "reference_impls/kl/submission.yaml", lambda text: text.replace("scenario: prevent", "scenario: wish")
    )
    complains(copy, ["submission.yaml", "scenario", "schema.json"])
    copy.edit("reference_impls/kl/submission.yaml", lambda text: "a: [")
    complains(copy, ["submission.yaml", "not valid YAML"])
    copy.edit("reference_impls/kl/submission.yaml", lambda text: "[" * 20_000)
    complains(copy, ["submission.yaml", "nested too deeply"])
    (copy.root / "reference_impls/kl/data").symlink_to("/nowhere")
    complains(copy, ["kl/data is a link", "plain files"])


def test_parameters_are_checked_before_anything_runs(copy: Tiny) -> None:
    complains(copy, ["at most 100"], *RUN, "--set", "weight=1000")
    complains(copy, ["no parameter 'size'", "weight"], *RUN, "--set", "size=1")
    complains(copy, ["has no value"], *RUN, "--set", "weight")


def test_a_folder_that_is_no_submission(copy: Tiny) -> None:
    complains(copy, ["no submission.yaml", "emperf new"], "run", "nowhere")
