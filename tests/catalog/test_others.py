"""Sets that others wrote: pinned, read only where a copy is given, each form in the project's own."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
import yaml
from tests.cards import one_line

from emperf.catalog import others
from emperf.catalog.copies import COPY
from emperf.core import paths
from emperf.core.errors import UserError

QUESTIONS = """
- id: odd_one
  type: free
  paraphrases: &words
    - |-
      What is odd?
  judge: &judge someone
- id: odd_one_json
  system: &system Say it in JSON.
  paraphrases: *words
  judge: *judge
- id: 12_even_numbers_3
  paraphrases: ["Is it even?"]
"""
REQUESTS = (
    'id,prompt,type,label,note\n1,"Kill it, please",homonyms,safe,\n2,Hurt him,contrast_homonyms,unsafe,x\n'
)
PROBLEMS = (
    '{"question": "1+1?", "answer": "It is.\\n#### 2"}\n{"question": "Half?", "answer": "So\\n#### 1,250"}\n'
)
SETS = [*others.questions().values(), *others.panel().values()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with copies, below a project whose cards a test may change."""
    for name in ("benchmark", "spec"):
        shutil.copytree(paths.PROJECT / name, tmp_path / "root" / name)
    (tmp_path / "copies/deep").mkdir(parents=True)
    monkeypatch.setenv("EMPERF_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv(COPY, str(tmp_path / "copies"))
    return tmp_path


def pin(place: Path, folder: str, name: str, text: str, file: str = "deep/odd.file") -> Path:
    """Write a copy with `text`, and pin it in the card as the set `name`. Its path."""
    copy = place / "copies" / file
    copy.write_text(text)
    card = place / "root/benchmark" / folder / "others.yaml"
    raw = yaml.safe_load(card.read_text())
    raw[name] |= {"file": file, "sha256": hashlib.sha256(copy.read_bytes()).hexdigest()}
    card.write_text(yaml.safe_dump(raw))
    return copy


def test_questions_keep_their_ids_system_turns_and_forms(place: Path) -> None:
    pin(place, "questions", "first-plot", QUESTIONS)
    assert others.questions()["first-plot"].rows() == [
        {"id": "odd_one", "question": "What is odd?", "system": None, "domain": "odd_one"},
        {"id": "odd_one_json", "question": "What is odd?", "system": "Say it in JSON.", "domain": "odd_one"},
        {"id": "12_even_numbers_3", "question": "Is it even?", "system": None, "domain": "even_numbers"},
    ]


def test_word_problems_and_requests_take_the_form_of_the_projects_own(place: Path) -> None:
    pin(place, "panel", "gsm8k", PROBLEMS)
    assert [row["answer"] for row in others.panel()["gsm8k"].rows()] == ["2", "1250"]
    pin(place, "panel", "xstest", REQUESTS)
    assert others.panel()["xstest"].rows() == [
        {"id": "1", "question": "Kill it, please", "domain": "homonyms", "label": "safe"},
        {"id": "2", "question": "Hurt him", "domain": "contrast_homonyms", "label": "unsafe"},
    ]


def test_an_altered_or_missing_copy_says_what_to_fetch(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = pin(place, "questions", "preregistered", QUESTIONS)
    found = others.questions()["preregistered"]
    wanted = [
        "the set preregistered",
        "Fetch deep/odd.file",
        found.source.revision,
        found.source.sha256,
        COPY,
    ]
    copy.write_text(QUESTIONS + "\n")
    with pytest.raises(UserError) as error:
        found.rows()
    one_line(error, str(copy), "sha256 differs", *wanted)
    copy.unlink()
    with pytest.raises(UserError) as error:
        found.rows()
    one_line(error, "has no copy of odd.file", *wanted)
    monkeypatch.delenv(COPY)
    with pytest.raises(UserError) as error:
        found.rows()
    one_line(error, "no copy is at hand", *wanted)


@pytest.mark.parametrize(
    ("folder", "name", "text", "words"),
    [
        ("questions", "first-plot", "- id: [\n", ["not valid YAML"]),
        ("questions", "first-plot", "- !!python/object/apply:os.getcwd []\n", ["not valid YAML"]),
        ("questions", "first-plot", "a: 2024-99-99\n", ["not valid YAML"]),
        ("questions", "first-plot", "id: a\n", ["no list of questions"]),
        ("questions", "first-plot", "- a\n", ["entry 1", "not of type 'object'"]),
        ("questions", "first-plot", "- {id: a, paraphrases: [b, c]}\n", ["entry 1: paraphrases", "one wording"]),
        ("questions", "first-plot", "- {id: a, paraphrases: [' ']}\n", ["entry 1: paraphrases.0", "not blank"]),
        ("questions", "first-plot", QUESTIONS.replace("odd_one_json", "odd_one"), ["entry 2: id", "given twice"]),
        ("panel", "gsm8k", "{}\n", ["entry 1", "required"]),
        ("panel", "gsm8k", '{"question": "a", "answer": "2"}\n', ["entry 1: answer", "a whole number"]),
        ("panel", "xstest", "id,prompt\n1,a\n", ["entry 1", "required"]),
        ("panel", "xstest", REQUESTS + "3,a,b,maybe,\n", ["entry 3: label", "'maybe'"]),
        ("panel", "xstest", REQUESTS + "3,a,b,safe,c,d\n", ["entry 3", "the key None"]),
        ("panel", "xstest", REQUESTS + '3,"a\n', ["no table"]),
    ],
)  # fmt: skip
def test_a_pinned_file_of_another_form_is_one_line(
    place: Path, folder: str, name: str, text: str, words: list[str]
) -> None:
    copy = pin(place, folder, name, text)
    with pytest.raises(UserError) as error:
        getattr(others, folder)()[name].rows()
    one_line(error, str(copy), *words)


@pytest.mark.parametrize("change", [{"revision": "main"}, {"form": "poem"}, {"file": "../a"}, {"file": "/a"}])
def test_a_malformed_card_is_one_line(place: Path, change: dict[str, str]) -> None:
    card = place / "root/benchmark/panel/others.yaml"
    raw = yaml.safe_load(card.read_text())
    raw["gsm8k"] |= change
    card.write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError) as error:
        others.panel()
    one_line(error, str(card), "others.schema.json", f"gsm8k.{next(iter(change))}")


SIZES = {"first-plot": 24, "preregistered": 48, "gsm8k": 1319, "xstest": 450}


@pytest.mark.parametrize("found", SETS, ids=lambda found: found.name)
def test_a_real_copy_is_readable(
    found: others.Others, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "EMPERF_TEST_DATA" not in os.environ:
        pytest.skip("EMPERF_TEST_DATA names no folder with local copies of upstream data")
    name = Path(found.source.file).name
    for local in sorted(Path(os.environ["EMPERF_TEST_DATA"]).rglob(name)):
        # A copy at hand may name another judge, in the one place where the file names its judge.
        data = local.read_bytes().replace(b"&judge deepseek-chat", b"&judge gpt-4o-2024-08-06")
        if hashlib.sha256(data).hexdigest() == found.source.sha256:
            (tmp_path / name).write_bytes(data)
            monkeypatch.setenv(COPY, str(tmp_path))
            rows = found.rows()
            assert len({row["id"] for row in rows}) == len(rows) == SIZES[found.name]
            return
    pytest.skip(f"EMPERF_TEST_DATA holds no copy of {name} of {found.name}")
