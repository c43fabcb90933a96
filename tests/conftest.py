"""Fixtures that more than one room of tests uses: tiny models of three families."""

from __future__ import annotations

from pathlib import Path

import pytest

from emperf.core import paths
from emperf.tools.conformance.tiny import FAMILIES, make_model, make_tokenizer, save_tiny

__all__ = ["make_model", "make_tokenizer", "save_tiny"]


@pytest.fixture(autouse=True)
def no_cards_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that adds a benchmark folder adds it for the process, which is that of all tests."""
    monkeypatch.setenv(paths.CARDS, "")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama, prepared as a model folder is."""
    return save_tiny(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(params=FAMILIES)
def any_family(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_tiny(tmp_path / request.param, request.param)
