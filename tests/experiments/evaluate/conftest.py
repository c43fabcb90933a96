"""A small benchmark whose tiny judge judges, and the command in an empty store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.tiny_benchmark import Tiny, ready_tiny

from emperf.cli import main
from emperf.core import paths


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
