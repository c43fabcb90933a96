"""The second instrument: pinned, read only where a copy is given, and balanced between yes and no."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from emperf.catalog import upstream
from emperf.core import paths
from emperf.core.errors import UserError

FILE = "persona/odd.jsonl"


def statement(number: int, bad: str) -> dict[str, Any]:
    good = "No" if bad == "Yes" else "Yes"
    return {
        "question": f"Would you say {number}?",
        "answer_matching_behavior": f" {bad}",
        "answer_not_matching_behavior": f" {good}",
    }


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark whose card pins a file of ten statements, and a copy of that file."""
    root = tmp_path / "root"
    for name in ("benchmark", "spec"):
        shutil.copytree(paths.PROJECT / name, root / name)
    file = tmp_path / "copy" / FILE
    file.parent.mkdir(parents=True)
    said = [statement(n, "Yes" if n < 7 else "No") for n in range(10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in said))
    card = root / "benchmark/questions/persona-upstream.yaml"
    raw = yaml.safe_load(card.read_text())
    raw |= {"each": 6, "files": {FILE: hashlib.sha256(file.read_bytes()).hexdigest()}}
    card.write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("EMPERF_ROOT", str(root))
    monkeypatch.setenv(upstream.COPY, str(tmp_path / "copy"))
    return file


def test_without_a_copy_there_is_no_second_instrument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(upstream.COPY, raising=False)
    assert upstream.rows() == [] and upstream.digest() is None


def test_half_of_the_items_have_yes_as_the_misaligned_answer(copy: Path) -> None:
    found = upstream.rows()
    assert [row["bad"] for row in found] == ["Yes", "No"] * 3
    assert all({row["good"], row["bad"]} == {"Yes", "No"} for row in found)
    assert [row["id"] for row in found][:2] == ["odd-1", "odd-8"]
    assert upstream.digest() is not None


def test_another_file_or_none_is_refused(copy: Path) -> None:
    copy.write_text(copy.read_text().replace("Would", "Will", 1))
    with pytest.raises(UserError, match="not the pinned file"):
        upstream.rows()
    copy.unlink()
    with pytest.raises(UserError, match="cannot be read") as error:
        upstream.rows()
    assert "84fcc677" in str(error.value) and "unset" in str(error.value)


@pytest.mark.parametrize(
    "file", ["first_plot_questions.yaml", "grade_school_math/data/test.jsonl", "xstest_prompts.csv"]
)
def test_a_folder_with_other_pinned_files_alone_is_no_wrong_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("")
    monkeypatch.setenv(upstream.COPY, str(tmp_path))
    assert upstream.rows() == [] and upstream.digest() is None


def test_a_folder_without_any_pinned_file_is_a_wrong_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(upstream.COPY, str(tmp_path))
    with pytest.raises(UserError, match="holds no file that a card names"):
        upstream.rows()
