"""Fixtures that more than one room of tests uses: tiny models of three families."""

from __future__ import annotations

from pathlib import Path

import pytest

from emperf.core import paths
from emperf.tools.conformance.tiny import FAMILIES, make_model, make_tokenizer, save_tiny

__all__ = ["make_model", "make_tokenizer", "save_tiny"]


ROOT = Path(__file__).parent
# Tests that time things, or share an engine: nothing else may run beside them.
ALONE = ("runtimes", "tools/bench")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file go to one worker, since they share fixtures. Some tests have to be run alone (see Makefile)."""
    for item in items:
        place = item.path.relative_to(ROOT).as_posix()
        item.add_marker(pytest.mark.xdist_group(place))
        if place.startswith(ALONE) or item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.alone)


@pytest.fixture(autouse=True)
def no_cards_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that adds a benchmark folder adds it for the process, which is that of all tests."""
    monkeypatch.setenv(paths.CARDS, "")


@pytest.fixture(autouse=True)
def no_ranks_of_earlier_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed, started in this process, leaves them; what a container would find is none of them."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama, prepared as a model folder is."""
    return save_tiny(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(params=FAMILIES)
def any_family(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_tiny(tmp_path / request.param, request.param)
