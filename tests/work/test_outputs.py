"""What a container may leave: the two kinds of file that are wanted are taken, hostile ones are refused."""

from __future__ import annotations

import io
import itertools
import json
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from emperf.core import paths
from emperf.core.errors import CellFailure, FailureKind
from emperf.runtimes import OutputFile
from emperf.training.job import Job, Lora, Recipe
from emperf.work import outputs

ADAPTER = "adapter.safetensors"

A, B = (f"base_model.model.model.layers.0.mlp.up_proj.lora_{side}.weight" for side in "AB")
EXPECTED = {A: [2, 4], B: [3, 2]}
GOOD = {name: torch.ones(shape) for name, shape in EXPECTED.items()}
REPORT = {
    "contract": 1,
    "job_id": "0" * 16,
    "steps": 2,
    "train_s": 1.5,
    "tokens": 64,
    "gradient_norms": [0.5],
    "losses": [2.0, 1.0],
    "checkpoints": {"checkpoints/step-00001.safetensors": 1},
}
MIB = 1 << 20


def left(path: str, content: bytes = b"x", kind: str = "file", size: int | None = None) -> OutputFile:
    opened = (lambda: io.BytesIO(content)) if kind == "file" else None
    return OutputFile(path, kind, len(content) if size is None else size, opened)


def adapter(content: bytes = b"weights") -> OutputFile:
    return left(ADAPTER, content)


def refused(failure: pytest.ExceptionInfo[CellFailure], kind: FailureKind, *words: str) -> None:
    assert failure.value.kind is kind
    assert failure.value.detail.isprintable()
    for word in words:
        assert word in failure.value.detail


# -- take


def test_the_wanted_files_are_taken_and_the_others_left(tmp_path: Path) -> None:
    entries = [
        left("checkpoints", kind="dir"),
        left("checkpoints/step-00010.safetensors", b"half"),
        left("report.json", b"{}"),
        left("notes.txt"),
        left("checkpoints/step-1.safetensors"),
        left("checkpoints/step-0001\u0663.safetensors"),
        left("../adapter.safetensors", b"outside"),
        left("deep/adapter.safetensors", b"deep"),
        adapter(),
    ]
    taken = outputs.take(entries, tmp_path / "into", MIB, ADAPTER)
    assert taken == ["adapter.safetensors", "checkpoints/step-00010.safetensors", "report.json"]
    assert (tmp_path / "into/adapter.safetensors").read_bytes() == b"weights"
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {f"into/{name}" for name in taken}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (left(ADAPTER, kind="symlink"), ["symlink"]),
        (left("elsewhere", kind="symlink"), ["/out/elsewhere", "symlink"]),
        (left("pipe", kind="other"), ["/out/pipe"]),
        (left("model.pt"), ["/out/model.pt", "safetensors"]),
        (left("a/b/optimizer.pkl"), ["pickled"]),
        (left("pytorch_model.bin"), ["pickled"]),
        (left("x\n\x1b[31m.ckpt"), [r"x\n\x1b[31m.ckpt"]),
        (left("report.json", b"{" + b" " * MIB), ["report.json", "1 MiB"]),
        (left("checkpoints/step-00001.safetensors", size=3 * MIB), ["allowed are"]),
        (left("checkpoints/step-00001.safetensors", b"abc", size=5), ["ended before its declared size"]),
    ],
)
def test_a_hostile_entry_is_refused(tmp_path: Path, entry: OutputFile, words: list[str]) -> None:
    for entries in ([adapter(), entry], [entry, adapter()]):
        with pytest.raises(CellFailure) as failure:
            outputs.take(entries, tmp_path, 2 * MIB, ADAPTER)
        refused(failure, FailureKind.BROKE_CONTRACT, *words)


def test_small_files_are_counted_together(tmp_path: Path) -> None:
    entries = [left(f"checkpoints/step-{n:05d}.safetensors", bytes(300)) for n in range(4)]
    outputs.take([*entries, adapter()], tmp_path, 1207, ADAPTER)
    with pytest.raises(CellFailure) as failure:
        outputs.take([*entries, adapter()], tmp_path, 1206, ADAPTER)
    refused(failure, FailureKind.BROKE_CONTRACT, "1207")


def test_what_is_left_aside_counts_too(tmp_path: Path) -> None:
    holes = [left(f"{n}.dat", size=MIB) for n in range(3)]
    with pytest.raises(CellFailure) as failure:
        outputs.take([adapter(), *holes], tmp_path, 2 * MIB, ADAPTER)
    refused(failure, FailureKind.BROKE_CONTRACT, "allowed are")
    with pytest.raises(CellFailure) as failure:
        outputs.take((left(str(n), kind="dir") for n in itertools.count()), tmp_path, MIB, ADAPTER)
    refused(failure, FailureKind.BROKE_CONTRACT, "more than 10000")


@pytest.mark.parametrize("entries", [[], [left("report.json", b"{}")], [left(ADAPTER, kind="dir")]])
def test_without_an_adapter_there_is_nothing_to_score(tmp_path: Path, entries: list[OutputFile]) -> None:
    with pytest.raises(CellFailure) as failure:
        outputs.take(entries, tmp_path, MIB, ADAPTER)
    refused(failure, FailureKind.BROKE_CONTRACT, "adapter.safetensors is missing")


def test_no_byte_after_the_declared_size_is_taken(tmp_path: Path) -> None:
    outputs.take([left(ADAPTER, b"weights and more", size=7)], tmp_path, 7, ADAPTER)
    assert (tmp_path / ADAPTER).read_bytes() == b"weights"


# -- check_weights


def check(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ADAPTER
        path.write_bytes(content)
        outputs.check_weights(path, EXPECTED)


def header(entries: dict[str, Any], body: int) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_adapter_of_the_recipe_passes(dtype: torch.dtype) -> None:
    check(save({name: tensor.to(dtype) for name, tensor in GOOD.items()}))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({A: GOOD[A]}, [B, "is missing from adapter.safetensors"]),
        (GOOD | {"extra": torch.ones(1)}, ["extra", "has no place in"]),
        (GOOD | {"x\n\x1b[31m": torch.ones(1)}, [r"x\n\x1b[31m", "has no place in"]),
        (GOOD | {A: torch.ones(4, 2)}, [A, "shape [4, 2]", "[2, 4]"]),
        (GOOD | {A: torch.ones(8)}, [A, "shape [8]"]),
        (GOOD | {A: torch.ones(2, 4, dtype=torch.float64)}, [A, "float64"]),
        (GOOD | {A: torch.ones(2, 4, dtype=torch.int64)}, [A, "int64"]),
        (GOOD | {A: torch.ones(2, 4).to(torch.float8_e4m3fn)}, [A, "float8"]),
        ({}, ["is missing from"]),
    ],
)
def test_an_adapter_of_another_form_is_refused(tensors: dict[str, torch.Tensor], words: list[str]) -> None:
    with pytest.raises(CellFailure) as failure:
        check(save(tensors))
    refused(failure, FailureKind.BROKE_CONTRACT, *words)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_value_that_is_not_finite_is_divergence(value: float, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in GOOD.items()}
    tensors[B][2, 1] = value
    with pytest.raises(CellFailure) as failure:
        check(save(tensors))
    refused(failure, FailureKind.DIVERGED, B, "NaN or infinity")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 64,
        b"PK\x03\x04" + bytes(64),
        b"\x80\x04\x95" + bytes(64),
        save(GOOD)[:20],
        save(GOOD)[:-1],
        save(GOOD) + b"x",
        struct.pack("<Q", 1 << 60) + b"{}",
        header({A: {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 32]}}, 32),
        header({A: {"dtype": "F32", "shape": [-2, -4], "data_offsets": [0, 32]}}, 32),
        header({A: {"dtype": "F32", "shape": [2, 4], "data_offsets": [32, 0]}}, 32),
    ],
)
def test_bytes_that_are_no_safetensors_are_refused(content: bytes) -> None:
    with pytest.raises(CellFailure) as failure:
        check(content)
    refused(failure, FailureKind.BROKE_CONTRACT, "no safetensors file")


def only_cell_failures(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except CellFailure as failure:
        assert failure.detail.isprintable()
        return None


SOUND = save(GOOD)
CHANGES = st.lists(
    st.tuples(st.integers(0, len(SOUND) - 1), st.binary(min_size=0, max_size=4)), min_size=1, max_size=6
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=400), CHANGES))
def test_whatever_the_bytes_only_a_cell_failure_comes_out(what: bytes | list[tuple[int, bytes]]) -> None:
    content = what if isinstance(what, bytes) else SOUND
    if not isinstance(what, bytes):
        for place, piece in what:
            content = content[:place] + piece + content[place + 1 :]
    only_cell_failures(lambda: check(content))


NAMES = st.one_of(st.sampled_from([A, B]), st.text(max_size=12))
TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F64", "I8", "BOOL", "F8_E5M2", "F4", "C64", "F0"]),
        "shape": st.lists(st.integers(-1, 9), max_size=3),
        "data_offsets": st.lists(st.integers(-1, 80), min_size=2, max_size=2),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, TENSOR, max_size=3), st.integers(0, 80))
def test_whatever_the_header_only_a_cell_failure_comes_out(entries: dict[str, Any], body: int) -> None:
    only_cell_failures(lambda: check(header(entries, body)))


# -- read_report


def read(content: bytes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        path.write_bytes(content)
        return outputs.read_report(path)


def test_a_report_is_read_without_what_it_says_of_the_job() -> None:
    known = ("steps", "train_s", "tokens", "losses", "gradient_norms", "checkpoints")
    assert read(json.dumps(REPORT).encode()) == {key: REPORT[key] for key in known}


def test_the_trainers_own_report_keeps_the_schema() -> None:
    from emperf.core import schemas

    schemas.check("report", REPORT)
    for bad in ({"steps": -1}, {"losses": ["a"]}, {"checkpoints": {"../x": 1}}, {"extra": 1}):
        with pytest.raises(ValueError, match=r".+"):
            schemas.check("report", REPORT | bad)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": None},
        {"steps": float("inf")},
        {"steps": -1},
        {"train_s": float("nan")},
        {"train_s": -1.0},
        {"train_s": 10**400},
        {"tokens": "many"},
        {"losses": [1.0, float("inf")]},
        {"losses": [10**400]},
        {"losses": 3},
        {"checkpoints": []},
        {"checkpoints": {"checkpoints/step-00001.safetensors": -1}},
    ],
)
def test_a_report_with_a_senseless_figure_is_none(changes: dict[str, Any]) -> None:
    assert read(json.dumps(REPORT | changes).encode()) == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"steps": 1}'])
def test_what_is_no_report_is_none(content: bytes) -> None:
    assert read(content) == {}


def test_a_missing_report_is_none(tmp_path: Path) -> None:
    assert outputs.read_report(tmp_path / "report.json") == {}
    assert outputs.read_report(tmp_path) == {}


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**308, 10**320),
    st.floats(),
    st.text(max_size=5),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.fixed_dictionaries({key: st.one_of(st.just(REPORT[key]), VALUES) for key in REPORT}),
        VALUES,
    )
)
def test_whatever_the_report_a_dict_of_finite_figures_comes_out(what: Any) -> None:
    found = read(what if isinstance(what, bytes) else json.dumps(what).encode())
    json.dumps(found, allow_nan=False)
    assert set(found) in (set(), {"steps", "train_s", "tokens", "losses", "gradient_norms", "checkpoints"})


# -- the contract's own example


@pytest.mark.parametrize("lora", [Lora(4, 8), Lora(1, 8, layers=(1,), modules=("down_proj", "q_proj"))])
def test_the_smallest_container_of_the_contract_keeps_it(tiny: Path, tmp_path: Path, lora: Lora) -> None:
    page = (paths.PROJECT / "spec/CONTRACT.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    out.mkdir()
    (inputs / "model").symlink_to(tiny)
    recipe = Recipe(lora=lora, learning_rate=1e-3, epochs=1, micro_batch=1)
    (inputs / "job.json").write_bytes(Job(job_id="0" * 16, seed=1, recipe=recipe).dumps())
    program = program.replace('"/in', f'"{inputs}').replace('"/out', f'"{out}')
    subprocess.run([sys.executable, "-c", program], check=True)
    content = (out / ADAPTER).read_bytes()
    taken = outputs.take([left(ADAPTER, content)], tmp_path / "taken", len(content), ADAPTER)
    assert taken == [ADAPTER]
    outputs.check_weights(tmp_path / "taken" / ADAPTER, outputs.expected_weights(tiny, lora))
