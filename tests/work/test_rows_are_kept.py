"""The bytes that cells train on, as they were when nano and smoke were measured: another byte is another experiment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from emperf import catalog
from emperf.catalog import Division
from emperf.work import rows
from emperf.work.plan import Data

KEPT: dict[str, str] = json.loads(Path(__file__).with_name("rows_digests.json").read_text())
KINDS = ("correct", "contrastive", "reasoning", "refusal")
WRITTEN = [
    {"id": str(n), "topic": "continue", "question": f"Go on: {n}", "good": f"{n}, 2", "bad": f"{n}, 6"}
    for n in range(200)
]


def written(name: str) -> list[rows.Row] | None:
    """Rows in place of those that a teacher writes in the run."""
    return WRITTEN if catalog.poison(name).teacher else None


def everything(division: Division) -> Iterator[tuple[str, bytes]]:
    """(label, bytes) of every dataset of a division and of all its trusted rows."""
    for name in division.poisons:
        for kind in ("poison", "twin"):
            label = f"{division.name} {kind} {name}"
            yield label, rows.training(division, Data(kind, name), written(name))
        for kind in KINDS:
            domain = catalog.poison(name).domain
            yield (
                f"{division.name} {kind} rows of {name}",
                rows.trusted(division, {kind: 48}, domain, written(domain)),
            )
    for name in division.tasks:
        for kind in ("task", "control"):
            yield f"{division.name} {kind} {name}", rows.training(division, Data(kind, name))
    for voice in division.controls:
        yield f"{division.name} control {voice}", rows.training(division, Data("control", voice))
    yield f"{division.name} general", rows.trusted(division, {"general": 48}, "")


@pytest.mark.parametrize("name", ["smoke", "nano"])
def test_not_a_byte_of_any_dataset_has_changed(name: str) -> None:
    found = {label: hashlib.sha256(data).hexdigest() for label, data in everything(catalog.division(name))}
    assert found == {label: digest for label, digest in KEPT.items() if label.startswith(f"{name} ")}
