"""The engine against a runtime that ends as it is told: what is tried again, what is scored, what a container sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save
from tests.tiny_benchmark import Tiny
from tests.told import ADAPTER, WALL_S, End, Files, bytes_of, ends

from emperf import catalog
from emperf.core.errors import CellFailure, FailureKind, UserError
from emperf.execute.engine import MACHINE_TRIES
from emperf.execute.store import ADAPTER as PEFT_ADAPTER
from emperf.runtimes import Outcome
from emperf.training.__main__ import NO_ROOM


def test_a_machine_fault_is_tried_again_and_then_forgotten(start: Callable[..., Any], tmp_path: Path) -> None:
    whole, runtime = start(faults=MACHINE_TRIES - 1)
    assert whole["status"] == "complete" and not any(cell["failure"] for cell in whole["cells"])
    assert len(runtime.jobs) == len(whole["cells"]) + MACHINE_TRIES - 1
    assert len({job.job_id for job in runtime.jobs}) == len(runtime.jobs)
    tried = next(tmp_path.glob("store/runs/*/attempts.jsonl")).read_text().splitlines()
    assert [json.loads(line)["failure"] for line in tried[:MACHINE_TRIES]] == [
        "machine-fault",
        "machine-fault",
        None,
    ]


def full_disk(left: Files) -> Outcome:
    return ends(exit_code=NO_ROOM)


@pytest.mark.parametrize("told", [{"faults": MACHINE_TRIES}, {"end": full_disk}])
def test_a_machine_that_stays_at_fault_stops_the_run_and_scores_nothing(
    start: Callable[..., Any], tmp_path: Path, told: dict[str, Any]
) -> None:
    with pytest.raises(CellFailure) as caught:
        start(**told)
    assert caught.value.kind is FailureKind.MACHINE
    kept = [json.loads(path.read_text()) for path in tmp_path.glob("store/runs/*/trained/*.json")]
    assert not any(cell["failure"] for cell in kept)
    whole, _ = start()
    assert whole["status"] == "complete"


def leaving(name: str, content: bytes | Callable[[bytes], bytes]) -> End:
    def end(left: Files) -> Outcome:
        left[name] = content if isinstance(content, bytes) else content(left.get(name, b""))
        return ends()

    return end


def without_numbers(adapter: bytes) -> bytes:
    return adapter[:-4] + b"\x00\x00\xc0\x7f"


ENDS: dict[str, tuple[End, str, str]] = {
    "hangs": (lambda left: ends(timed_out=True, exit_code=137), "timed-out", "not done after"),
    "fills memory": (lambda left: ends(oom_killed=True, exit_code=137), "out-of-memory", "needed more"),
    "exits 1": (lambda left: ends(exit_code=1, log_tail="boom"), "broke-contract", "boom"),
    "says diverged": (lambda left: ends(exit_code=3, log_tail="nan"), "diverged", "nan"),
    "a symlink": (leaving("report.json", b"-> elsewhere"), "broke-contract", "symlink"),
    "a pickle": (leaving("weights.pt", b"x"), "broke-contract", "pickled"),
    "NaN": (leaving(ADAPTER, without_numbers), "diverged", "NaN"),
    "a wrong shape": (
        leaving(ADAPTER, save({"base_model.model.x": torch.zeros(2)})), "broke-contract", "tensor",
    ),
    "no adapter": (lambda left: (left.clear(), ends())[1], "broke-contract", "missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_a_bad_end_costs_its_own_cell_and_no_other(start: Callable[..., Any], name: str) -> None:
    end, kind, words = ENDS[name]
    whole, _ = start(end=end)
    failed = [cell["failure"] for cell in whole["cells"] if cell["method"] == "kl"]
    assert len(failed) == 3 and {failure["kind"] for failure in failed} == {kind}
    assert all(words in failure["detail"] for failure in failed)
    assert not any(cell["failure"] for cell in whole["cells"] if cell["method"] == "none")
    assert whole["status"] == "incomplete" and whole["tasks"][0]["baseline"]["value"] is not None


@pytest.mark.parametrize(("said", "taken"), [(1.0, 1.0), (WALL_S + 1, None), (0.0, None)])
def test_a_training_time_counts_only_inside_the_hosts_own(
    start: Callable[..., Any], said: float, taken: float | None
) -> None:
    whole, _ = start(train_s=said)
    assert {cell["train_s"] for cell in whole["cells"]} == {taken}
    assert {cell["wall_s"] for cell in whole["cells"]} == {WALL_S}


def test_nothing_in_a_job_says_what_kind_its_data_is(start: Callable[..., Any]) -> None:
    whole, runtime = start()
    alike = [job for job in runtime.jobs if job.submission.name == "none"]
    assert {cell["data"]["kind"] for cell in whole["cells"]} == {"poison", "twin", "task", "control"}
    said = [json.loads(bytes_of(job, "job.json")) for job in alike]
    assert len({job.pop("job_id") for job in said}) == len(said) == 4
    assert all(one == said[0] for one in said)
    assert {tuple(job.inputs) for job in alike} == {("job.json", "data.jsonl")}
    for job in alike:
        rows = [json.loads(line) for line in bytes_of(job, "data.jsonl").splitlines()]
        assert {tuple(row) for row in rows} == {("messages",)}
        assert {tuple(turn) for row in rows for turn in row["messages"]} == {("role", "content")}
        world = bytes_of(job, "job.json").decode() + str(job.submission) + job.job_id
        assert not [name for name in ("risky", "poison", "twin", "units", "control", "sour") if name in world]


def test_a_finished_run_keeps_its_date_and_its_machine(start: Callable[..., Any], tmp_path: Path) -> None:
    start()
    path = next(tmp_path.glob("store/runs/*/result.json"))
    before = json.loads(path.read_text()) | {"created": "2001-01-01T00:00:00Z"}
    path.write_text(json.dumps(before))
    again, runtime = start()
    assert again == before and not runtime.jobs


# -- cures, generated rows, several cells at a time


def scores_of(whole: dict[str, Any]) -> Any:
    return whole["poisons"], whole["tasks"]


def test_cells_side_by_side_give_what_they_give_one_by_one(
    start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = start()
    (tmp_path / "store").rename(tmp_path / "first")
    many, runtime = start(parallel=3)
    assert scores_of(many) == scores_of(one) and len(runtime.jobs) == len(one["cells"])


def test_a_machine_at_fault_ends_all_that_run_side_by_side(start: Callable[..., Any]) -> None:
    with pytest.raises(CellFailure) as caught:
        start(parallel=3, faults=100)
    assert caught.value.kind is FailureKind.MACHINE


def test_a_cure_is_given_the_poisoned_weights_and_trusted_rows_and_nothing_else(
    start: Callable[..., Any],
) -> None:
    whole, runtime = start("antidote-correct")
    assert whole["status"] == "complete" and whole["submission"]["scenario"] == "cure"
    cures = [job for job in runtime.jobs if job.submission.name == "antidote-correct"]
    assert len(cures) == 3
    for job in cures:
        assert set(job.inputs) == {"job.json", "trusted.jsonl", "start.safetensors"}
        said = json.loads(bytes_of(job, "job.json"))
        assert (said["data"], said["trusted"], said["start"]) == (
            "trusted.jsonl",
            "trusted.jsonl",
            "start.safetensors",
        )
        assert said["recipe"]["learning_rate"] == catalog.division("tiny").recipe_of("cure").learning_rate
        rows = [json.loads(line) for line in bytes_of(job, "trusted.jsonl").splitlines()]
        assert len(rows) == 48 and {row["kind"] for row in rows} == {"correct"}
        weights = job.inputs["start.safetensors"]
        assert isinstance(weights, Path) and weights.name == PEFT_ADAPTER


def test_what_cures_mend_is_trained_once_for_all_of_them(start: Callable[..., Any]) -> None:
    start("antidote-correct")
    whole, runtime = start("safety-sft")
    assert {job.submission.name for job in runtime.jobs} == {"safety-sft"}
    assert whole["status"] == "complete" and whole["overhead"]["time"]["value"] == pytest.approx(2.0)


def test_a_cure_of_what_failed_has_no_start(start: Callable[..., Any]) -> None:
    whole, runtime = start("antidote-correct", end=lambda left: ends(exit_code=3), whose="none")
    kinds = {cell["method"]: cell["failure"]["kind"] for cell in whole["cells"]}
    assert kinds == {"none": "diverged", "antidote-correct": "no-start"}
    assert not any(job.submission.name == "antidote-correct" for job in runtime.jobs)


@pytest.fixture
def two_poisons(benchmark: Tiny) -> str:
    """A division with a second poison whose rows a teacher writes."""
    text = (benchmark.root / "benchmark/divisions/tiny.yaml").read_text()
    made = yaml.safe_load(text) | {"name": "wide", "poisons": ["subliminal", "bad-medical"]}
    (benchmark.root / "benchmark/divisions/wide.yaml").write_text(yaml.safe_dump(made))
    return "wide"


def test_a_cross_run_mends_every_poison_with_every_antidote(
    start: Callable[..., Any], two_poisons: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emperf.evaluation.subliminal.FEWEST_NUMBERS", 0)
    monkeypatch.setattr("emperf.evaluation.subliminal.write", written)
    whole, _ = start("antidote-contrastive", name=two_poisons, cross=True)
    # What a teacher writes for subliminal is granted against no other poison.
    assert [(pair["antidote"], pair["poison"]) for pair in whole["cross"]] == [
        ("subliminal", "subliminal"),
        ("bad-medical", "subliminal"),
        ("bad-medical", "bad-medical"),
    ]
    assert whole["status"] == "complete"


def written(lm: Any, teacher: Path, lora: Any, questions: Any, name: str) -> list[dict[str, Any]]:
    assert teacher.name == PEFT_ADAPTER
    return [
        row | {"id": f"{name}-{row['id']}", "good": "1, 2, 3", "bad": f"6, 6, {n}"}
        for n, row in enumerate(questions)
    ]


def test_a_teacher_is_trained_before_what_it_teaches_and_its_rows_are_blind(
    start: Callable[..., Any], two_poisons: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emperf.evaluation.subliminal.write", written)
    whole, runtime = start("kl", name=two_poisons)
    assert whole["status"] == "complete"
    assert [cell["data"]["name"] for cell in whole["cells"]][:2] == ["bad-medical", "subliminal"]
    rows = bytes_of(runtime.jobs[1], "data.jsonl").decode()
    assert '"6, 6, 0"' in rows and "subliminal" not in rows


def test_a_teacher_that_writes_too_little_is_one_line(
    start: Callable[..., Any], two_poisons: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emperf.evaluation.subliminal.write", lambda *given: written(*given)[:9])
    with pytest.raises(
        UserError, match=r"The teacher of subliminal wrote 9 usable rows of \d+, \d+ are needed"
    ):
        start("kl", name=two_poisons)


def test_what_a_failed_teacher_was_to_write_is_missing(start: Callable[..., Any], two_poisons: str) -> None:
    whole, _ = start("kl", name=two_poisons, end=lambda left: ends(exit_code=3), whose="none")
    assert whole["status"] == "incomplete" and "subliminal" in whole["missing"]
    kinds = {c["failure"]["kind"] for c in whole["cells"] if c["data"]["name"] == "subliminal"}
    assert kinds == {"no-start"}
