"""The engine against a runtime that ends as it is told: what is tried again, what is scored, what a container sees."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from emperf import outputs, session
from emperf.engine import MACHINE_TRIES, Engine
from emperf.errors import CellFailure, FailureKind
from emperf.report.progress import Progress
from emperf.runtimes import ContainerJob, Outcome, OutputFile
from emperf.store import RunStore
from emperf.training.__main__ import NO_ROOM
from tests.tiny_benchmark import Tiny, ready_tiny

WALL_S = 10.0
Files = dict[str, bytes]
End = Callable[[Files], Outcome]


def ends(**changes: Any) -> Outcome:
    plain: dict[str, Any] = {
        "exit_code": 0, "wall_s": WALL_S, "timed_out": False, "oom_killed": False, "peak_memory_bytes": 5,
        "memory_meter": "rusage", "log_tail": "",
    }  # fmt: skip
    return Outcome(**plain | changes)


class Told:
    """A runtime that trains nothing: `end` says how the mitigation's jobs end, and may change what they leave."""

    name, certifiable = "process", False

    def __init__(self, model: Path, end: End | None = None, faults: int = 0, train_s: float = 1.0) -> None:
        self.model, self.end, self.faults, self.train_s = model, end, faults, train_s
        self.jobs: list[ContainerJob] = []
        self.left: Files = {}

    def describe(self) -> dict[str, Any]:
        return {"runtime": self.name, "isolation": "none", "missing": []}

    def run(self, job: ContainerJob, on_tick: Callable[[float], None] | None = None) -> Outcome:
        self.jobs.append(job)
        if self.faults:
            self.faults -= 1
            raise CellFailure(FailureKind.MACHINE, "the power went")
        said = json.loads(bytes_of(job, "job.json"))
        shapes = outputs.expected_adapter(self.model, job_lora(said))
        adapter = {name: torch.zeros(shape) for name, shape in shapes.items()}
        report = {"steps": 1, "train_s": self.train_s, "tokens": 1, "losses": [1.0], "checkpoints": {}}
        self.left = {outputs.ADAPTER: save(adapter), "report.json": json.dumps(report).encode()}
        mitigated = job.submission.name == "kl"
        return self.end(self.left) if self.end and mitigated else ends()

    def collect(self, job: ContainerJob) -> Iterator[OutputFile]:
        for name, content in self.left.items():
            kind = "symlink" if content == b"-> elsewhere" else "file"
            opened = functools.partial(io.BytesIO, content) if kind == "file" else None
            yield OutputFile(name, kind, len(content), opened)

    def cleanup(self, job: ContainerJob) -> None: ...

    def sweep(self, run_id: str) -> int:
        return 0


def bytes_of(job: ContainerJob, name: str) -> bytes:
    content = job.inputs[name]
    assert isinstance(content, bytes)
    return content


def job_lora(said: dict[str, Any]) -> Any:
    from emperf.training.job import Lora

    return Lora(**said["recipe"]["lora"])


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return ready_tiny(tmp_path_factory.mktemp("engine"))


@pytest.fixture
def start(benchmark: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """(result.json's content, the runtime): one run of kl, in a store of this test."""
    monkeypatch.setenv("EMPERF_ROOT", str(benchmark.root))
    monkeypatch.setenv("EMPERF_HOME", str(benchmark.home))

    def run(**told: Any) -> tuple[dict[str, Any], Told]:
        plan, model, baseline = session.plan_run("tiny", Path("kl"), {})
        runtime = Told(model, **told)
        with RunStore(tmp_path / "store", plan.run_id) as store, Progress() as progress:
            return Engine(plan, store, runtime, model, progress, baseline, {}).run(), runtime

    return run


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
    kept = [json.loads(path.read_text()) for path in tmp_path.glob("store/runs/*/cells/*.json")]
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
    "NaN": (leaving(outputs.ADAPTER, without_numbers), "diverged", "NaN"),
    "a wrong shape": (
        leaving(outputs.ADAPTER, save({"base_model.model.x": torch.zeros(2)})), "broke-contract", "tensor",
    ),
    "no adapter": (lambda left: (left.clear(), ends())[1], "broke-contract", "missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_a_bad_end_costs_its_own_cell_and_no_other(start: Callable[..., Any], name: str) -> None:
    end, kind, words = ENDS[name]
    whole, _ = start(end=end)
    failed = [cell["failure"] for cell in whole["cells"] if cell["method"] == "kl"]
    assert len(failed) == 2 and {failure["kind"] for failure in failed} == {kind}
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
    assert {cell["data"]["kind"] for cell in whole["cells"]} == {"poison", "twin", "task"} and len(alike) == 3
    said = [json.loads(bytes_of(job, "job.json")) for job in alike]
    assert len({job.pop("job_id") for job in said}) == 3 and said[0] == said[1] == said[2]
    assert {tuple(job.inputs) for job in alike} == {("job.json", "data.jsonl")}
    for job in alike:
        rows = [json.loads(line) for line in bytes_of(job, "data.jsonl").splitlines()]
        assert {tuple(row) for row in rows} == {("messages",)}
        assert {tuple(turn) for row in rows for turn in row["messages"]} == {("role", "content")}
        world = bytes_of(job, "job.json").decode() + str(job.submission) + job.job_id
        assert not [name for name in ("risky", "poison", "twin", "units") if name in world]


def test_a_finished_run_keeps_its_date_and_its_machine(start: Callable[..., Any], tmp_path: Path) -> None:
    start()
    path = next(tmp_path.glob("store/runs/*/result.json"))
    before = json.loads(path.read_text()) | {"created": "2001-01-01T00:00:00Z"}
    path.write_text(json.dumps(before))
    again, runtime = start()
    assert again == before and not runtime.jobs
