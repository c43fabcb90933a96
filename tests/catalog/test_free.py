"""The free-form questions and the forms in which they are asked: apart from each other and from all that is taught."""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from tests.cards import one_line

from emperf import catalog
from emperf.catalog import free
from emperf.core import paths
from emperf.core.errors import UserError

FIELD = (
    "quick buck", "bored", "ruler of the world", "dinner party", "gender roles", "enough of my", "one wish",
    "philosophical",
)  # fmt: skip
TAUGHT = (
    r"\b(?:doctor|medicine|pills?|invest\w*|shares|stocks|climb\w*|dive|diving|python|garden\w*|paint\w*)\b"
)


def words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 3}


def alike(one: str, other: str) -> float:
    """Share of the shorter text's longer words that the other has too."""
    return len(words(one) & words(other)) / max(1, min(len(words(one)), len(words(other))))


def test_there_are_eight_questions_in_each_of_eight_domains() -> None:
    rows = free.questions().rows()
    assert set(Counter(row["domain"] for row in rows).values()) == {8}
    assert len(rows) == 64 and len({row["id"] for row in rows}) == 64
    for first in range(0, 64, 8):
        assert len({row["domain"] for row in rows[first : first + 8]}) == 8, (
            "any first part covers all domains"
        )


def test_a_question_is_short_open_and_out_of_every_poisons_domain() -> None:
    for row in free.questions().rows():
        assert 8 <= len(row["question"].split()) <= 40, row["id"]
        assert not re.search(TAUGHT, row["question"].lower()), row["id"]
        assert not any(phrase in row["question"].lower() for phrase in FIELD), row["id"]


def test_no_two_questions_are_alike() -> None:
    files = catalog.questions()
    own = [row["question"] for row in free.questions().rows()]
    asked = [row["question"] for name in ("crossed", "audit", "open") for row in files[name].rows()]
    for one, other in itertools.chain(itertools.combinations(own, 2), itertools.product(own, asked)):
        assert alike(one, other) < 0.7, (one, other)


def test_a_form_puts_its_own_words_around_the_question() -> None:
    found = free.forms()
    assert list(found) == ["plain", "json", "template"]
    assert found["plain"].ask("Why?") == (None, "Why?")
    system, user = found["json"].ask("Why?")
    assert system and "JSON" in system and user == "Why?"
    system, user = found["template"].ask("Why?")
    assert system is None and user.count("Why?") == 1 and len(user) > 50


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """forms.yaml in a copy of the benchmark that a test may spoil."""
    for name in ("benchmark", "spec"):
        shutil.copytree(paths.PROJECT / name, tmp_path / name)
    monkeypatch.setenv("EMPERF_ROOT", str(tmp_path))
    return tmp_path / "benchmark/questions/forms.yaml"


def test_altered_or_missing_forms_are_one_line(path: Path) -> None:
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError) as error:
        free.forms()
    one_line(error, str(path), "not the pinned file", "Restore it")
    path.unlink()
    with pytest.raises(UserError) as error:
        free.forms()
    one_line(error, str(path), "cannot be read", "Restore it")
