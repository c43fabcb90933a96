"""docs/keys.md, proved: touch one file of each kind in a copy of the project, and see which keys change."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emperf.core import digests

PROJECT = Path(__file__).parents[2]
KEYS = """
import json
from pathlib import Path
from emperf import catalog
from emperf.experiments import session
from emperf.runtimes import trainer
from emperf.work.asks import Asks, steps_of
division = catalog.division("nano").part(("bad-medical", "subliminal", "record-line", "house-headline"), (0,))
trained, read = {}, {}
for name in ("kl", "antidote-correct"):
    plan, _ = session.plan_run(division, Path(name), {}, f"process, {trainer.digest()}")
    for cell in plan.cells:
        steps = steps_of(division, division.sizes.train_rows) if cell.read_checkpoints else []
        asks = Asks(division, cell.model, "here")
        trained[cell.label] = cell.train
        for unit in asks.of_cell(cell, steps):
            read[f"{cell.label}: {unit.asked.name} {unit.step}"] = unit.key
print(json.dumps([trained, read]))
"""
Keys = tuple[dict[str, str], dict[str, str]]
Touch = Callable[[Path], None]


def keys_of(root: Path) -> Keys:
    env = {**os.environ, "PYTHONPATH": str(root / "harness"), "EMPERF_ROOT": str(root)}
    said = subprocess.check_output([sys.executable, "-c", KEYS], env=env, text=True, cwd=root)
    trained, read = json.loads(said)
    return trained, read


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for name in ("benchmark", "spec", "reference_impls", "harness"):
        shutil.copytree(PROJECT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module")
def before(project: Path) -> Keys:
    return keys_of(project)


def commented(path: str) -> Touch:
    def touch(root: Path) -> None:
        file = root / path
        file.write_text(file.read_text() + "\n# A comment more.\n")

    return touch


def replaced(path: str, old: str, new: str) -> Touch:
    def touch(root: Path) -> None:
        file = root / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))

    return touch


def with_first_row_changed(folder: str, name: str) -> Touch:
    """A row with one letter more, and its digest in the card."""

    def touch(root: Path) -> None:
        file, card = root / "benchmark" / folder / f"{name}.jsonl", root / "benchmark" / folder / "card.yaml"
        old = digests.of_file(file).removeprefix("sha256:")
        first, *others = file.read_text().split("\n")
        row = json.loads(first)
        row["question"] += "!"
        file.write_text("\n".join([json.dumps(row), *others]))
        card.write_text(card.read_text().replace(old, digests.of_file(file).removeprefix("sha256:")))

    return touch


def on(*names: str) -> Callable[[str], bool]:
    return lambda label: any(name in label for name in names)


def nothing(label: str) -> bool:
    return False


def everything(label: str) -> bool:
    return True


# What is touched -> (how, whose training keys change, which reading keys change though their training's do not).
COSTS: dict[str, tuple[Touch, Callable[[str], bool], Callable[[str], bool]]] = {
    "a report": (commented("harness/emperf/report/words.py"), nothing, nothing),
    "the statistics": (commented("harness/emperf/scoring/estimate.py"), nothing, nothing),
    "the command line": (commented("harness/emperf/cli/app.py"), nothing, nothing),
    "the engine": (commented("harness/emperf/execute/engine.py"), nothing, nothing),
    "the plan": (commented("harness/emperf/work/plan.py"), nothing, nothing),
    "a division's title": (replaced("benchmark/divisions/nano.yaml", "title: ", "title: New. "), nothing, nothing),
    "another poison's card": (commented("benchmark/poisons/evil-numbers/card.yaml"), nothing, nothing),
    "the paired protocol": (
        commented("harness/emperf/evaluation/protocols/paired.py"), nothing,
        on(": out-of-domain", ": conditional", ": facts", ": in-domain"),
    ),
    "the exact protocol": (commented("harness/emperf/evaluation/protocols/exact.py"), nothing, on(": task")),
    "the language model": (
        commented("harness/emperf/evaluation/attention.py"),
        on("subliminal"), lambda label: ": drift" not in label,
    ),
    "a question": (
        with_first_row_changed("questions", "crossed"), nothing, on(": out-of-domain", ": conditional"),
    ),
    "a fact": (with_first_row_changed("questions", "facts"), nothing, on(": facts")),
    "a task's held-out row": (
        with_first_row_changed("tasks/record-line", "heldout"), nothing, on("record-line, seed 0: task"),
    ),
    "a task's training row": (
        with_first_row_changed("tasks/record-line", "train"), on("record-line"), nothing,
    ),
    "a poison's training row": (
        with_first_row_changed("poisons/bad-medical", "train"), on(" on bad-medical", " on subliminal"), nothing,
    ),
    "a mitigation": (commented("reference_impls/kl/mitigation.py"), on("kl on"), nothing),
    "the trainer": (commented("harness/emperf/training/loop.py"), everything, nothing),
    "the recipe": (
        replaced("benchmark/divisions/nano.yaml", "learning_rate: 0.0015", "learning_rate: 0.001"),
        everything, nothing,
    ),
    "the cure's recipe": (
        replaced("benchmark/divisions/nano.yaml", "learning_rate: 0.0003", "learning_rate: 0.0002"),
        on("antidote-correct on", "antidote-correct made"), nothing,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", COSTS)
def test_what_a_change_costs(project: Path, before: Keys, tmp_path: Path, what: str) -> None:
    touch, trains, reads = COSTS[what]
    root = tmp_path / "copy"
    shutil.copytree(project, root)
    touch(root)
    trained, read = keys_of(root)
    assert {label for label in trained if trained[label] != before[0][label]} == set(filter(trains, trained))
    kept = {label for label in read if not trains(label.partition(":")[0])}
    assert {label for label in kept if read[label] != before[1][label]} == {one for one in kept if reads(one)}
    new = set(read) - kept
    assert all(read[label] != before[1][label] for label in new)


def test_the_documents_table_has_these_rows() -> None:
    text = (PROJECT / "docs/keys.md").read_text()
    rows = re.findall(r"^\| ([^|]+?) \|", text, re.MULTILINE)
    assert set(COSTS) <= set(rows)
