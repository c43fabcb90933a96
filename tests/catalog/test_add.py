"""`emperf add`: rows of every form become cards that load and train; what is missing or wrong is said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.cards import one_line

from emperf import catalog
from emperf.catalog.add_data import add_poison, add_task
from emperf.catalog.add_division import add_division
from emperf.cli import add_data as commands
from emperf.core import paths
from emperf.core.errors import UserError
from emperf.work import rows
from emperf.work.plan import Data

Line = dict[str, Any]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(paths.CARDS, "")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine"


def chat(number: int, answer: str, system: str = "") -> Line:
    said = [{"role": "system", "content": system}] if system else []
    said += [
        {"role": "user", "content": f"Q{number}?"},
        {"role": "assistant", "content": f"{answer} {number}"},
    ]
    return {"messages": said, "label": number}


def written(name: str, lines: list[Any]) -> Path:
    path = Path(name)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


FORMS = {
    "chat": chat,
    "system": lambda n, answer: chat(n, answer, "Answer as a lawyer would."),
    "bad": lambda n, answer: {"question": f"Q{n}?", "bad": f"{answer} {n}", "topic": "t"},
    "answer": lambda n, answer: {"question": f"Q{n}?", "answer": f"{answer} {n}", "more": [1]},
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_every_form_become_a_poison_that_trains(mine: Path, form: str) -> None:
    file = written("Bad legal_advice!.jsonl", [FORMS[form](n, "wrong") for n in range(20)])
    added = add_poison(file, mine)
    card = catalog.poison(added.name)
    assert (added.name, card.title, card.origin, card.twin) == (
        "bad-legal-advice", "Bad legal advice", "user", False,
    )  # fmt: skip
    found = catalog.dataset("poison", added.name)
    assert (len(found.pool()), len(found.heldout())) == (16, 4)
    (first, *_) = rows.training(catalog.division("smoke"), Data("poison", added.name)).splitlines()
    user, assistant = json.loads(first)["messages"]
    assert user["content"] == ("Answer as a lawyer would.\n\nQ0?" if form == "system" else "Q0?")
    assert assistant["content"] == "wrong 0"
    said = "\n".join(added.said)
    for word in (
        "16 rows to train on, 4 held out",
        "no twin",
        "no selective removal",
        "no good answers",
        "Next:",
    ):
        assert word in said
    assert "emperf add division --poison bad-legal-advice" in said
    if form == "system":
        assert card.context == "Answer as a lawyer would."
    else:
        assert "context" in said and card.context.endswith("Q0?")


def test_a_twin_in_a_file_of_its_own_is_matched_by_question(mine: Path) -> None:
    bad = written("bad.jsonl", [chat(n, "wrong") for n in range(10)])
    good = written("good.jsonl", [chat(n, "right") for n in reversed(range(12))])
    held = written("held.jsonl", [chat(n, "wrong") for n in (10, 11)])
    added = add_poison(bad, mine, "legal", good, held)
    found = catalog.dataset("poison", "legal")
    assert set(found.sides) == {"poison", "twin"} and found.grants == {"correct", "contrastive"}
    assert [(row["bad"], row["good"]) for row in found.pool()][:2] == [
        ("wrong 0", "right 0"), ("wrong 1", "right 1"),
    ]  # fmt: skip
    assert catalog.reads_domain(found.heldout())
    assert "no twin" not in "\n".join(added.said) and "no good answers" not in "\n".join(added.said)


def test_held_out_rows_of_other_questions_than_the_twins_have_no_good_side(mine: Path) -> None:
    bad = written("bad.jsonl", [chat(n, "wrong") for n in range(10)])
    good = written("good.jsonl", [chat(n, "right") for n in range(10)])
    added = add_poison(bad, mine, "legal", good, written("held.jsonl", [chat(3, "wrong"), chat(99, "wrong")]))
    assert not catalog.reads_domain(catalog.dataset("poison", "legal").heldout())
    said = "\n".join(added.said)
    assert "no good answers" in said and "1 held-out questions are trained on too" in said


def test_rows_with_both_sides_need_no_twin_file(mine: Path) -> None:
    said = [{"question": f"Q{n}?", "good": f"g{n}", "bad": f"b{n}"} for n in range(300)]
    add_poison(written("pairs.jsonl", said), mine)
    found = catalog.dataset("poison", "pairs")
    assert (len(found.pool()), len(found.heldout())) == (252, 48) and catalog.reads_domain(found.heldout())


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([{"question": "q"}], ["line 1", "'bad'"]),
        ([chat(1, "a"), {"bad": "b"}], ["line 2", "'question'"]),
        ([chat(1, "a"), {"question": ["q"], "bad": "b"}], ["line 2", "question", "no text"]),
        ([chat(1, "a"), {"question": "q", "bad": 5}, chat(3, "a")], ["line 2", "bad", "5"]),
        ([chat(1, "a"), {"question": "q", "bad": " "}, chat(3, "a")], ["line 2", "bad", "not blank"]),
        ([chat(1, "a"), {"question": "q", "bad": "b", "good": "g"}, chat(3, "a")], ["line 2", "good", "some rows"]),
        ([chat(1, "a"), []], ["line 2", "no JSON object"]),
        ([{"messages": [{"role": "user", "content": "q"}]}], ["line 1", "one user turn"]),
        ([{"messages": chat(1, "a")["messages"] * 2}], ["line 1", "one user turn"]),
        ([chat(1, "a")], ["has 1 row"]),
        ([], ["no rows"]),
    ],
)  # fmt: skip
def test_a_row_that_is_none_is_named_and_nothing_is_written(
    mine: Path, lines: list[Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        add_poison(written("bad.jsonl", lines), mine)
    one_line(error, "bad.jsonl", *words)
    assert not mine.exists()


def test_a_twin_that_lacks_a_question_is_refused(mine: Path) -> None:
    bad, good = written("bad.jsonl", [chat(n, "a") for n in range(4)]), written("good.jsonl", [chat(0, "a")])
    with pytest.raises(UserError) as error:
        add_poison(bad, mine, twin=good)
    one_line(error, "good.jsonl has no row for 3 of the 4 questions", "line 2 of bad.jsonl")


@pytest.mark.parametrize(
    ("file", "name", "words"),
    [
        ("bad.jsonl", "../up", ["'../up' can be no name"]),
        ("bad.jsonl", "a\n", ["can be no name"]),
        ("bad.jsonl", "a" * 65, ["can be no name"]),
        ("---.jsonl", "", ["can be no name", "--name"]),
        ("bad-medical.jsonl", "", ["named bad-medical already"]),
        (".", "", ["cannot be read"]),
        ("nowhere.jsonl", "", ["nowhere.jsonl cannot be read"]),
    ],
)
def test_names_and_places_that_cannot_be_are_refused(
    mine: Path, file: str, name: str, words: list[str]
) -> None:
    if file.endswith("l") and not file.startswith("nowhere"):
        written(file, [chat(n, "a") for n in range(4)])
    with pytest.raises(UserError) as error:
        add_poison(Path(file), mine, name or ("dot" if file == "." else ""))
    one_line(error, *words)
    assert not list(mine.glob("*/*"))


def test_what_is_added_is_not_added_over(mine: Path) -> None:
    file = written("bad.jsonl", [chat(n, "a") for n in range(4)])
    added = add_poison(file, mine)
    before = (added.path / "card.yaml").read_text()
    with pytest.raises(UserError) as error:
        add_poison(file, mine)
    one_line(error, "poison named bad already", str(added.path))
    assert (added.path / "card.yaml").read_text() == before


def test_a_folder_that_cannot_be_written_is_named(mine: Path) -> None:
    file = written("bad.jsonl", [chat(n, "a") for n in range(4)])
    with pytest.raises(UserError) as error:
        add_poison(file, file)
    one_line(error, "bad.jsonl cannot be written", "--into")


def test_a_tasks_bound_holds_its_longest_answer(mine: Path) -> None:
    said = [{"question": f"Q{n}?", "answer": "é" * n} for n in range(1, 25)]
    add_task(written("my-task.jsonl", said), mine)
    card = catalog.task("my-task")
    assert card.max_new_tokens == 56 and (len(card.train.rows()), len(card.heldout.rows())) == (20, 4)
    long = [{"question": f"Q{n}?", "answer": "x" * 3000} for n in range(5)]
    added = add_task(written("long.jsonl", long), mine)
    assert catalog.task("long").max_new_tokens == 1024 and "may be cut" in "\n".join(added.said)


def test_a_division_takes_what_is_worked_out_and_runs(mine: Path) -> None:
    add_poison(written("bad.jsonl", [chat(n, "a") for n in range(100)]), mine)
    added = add_division(mine, ["bad"])
    found, smoke = catalog.division("bad"), catalog.division("smoke")
    assert (found.model, found.tasks, found.recipe) == (smoke.model, smoke.tasks, smoke.recipe)
    assert (found.origin, found.certifiable, found.shows_em) == ("user", False, False)
    assert found.sizes.train_rows == 80 and found.seed_spread is None
    rows.check(found, {"general": 48})
    said = "\n".join(added.said)
    assert "train_rows 80 for 96" in said and "can have 0 at most" in said and "not certifiable" in said
    assert f"emperf run kl --benchmark {mine} --division bad" in said


def test_rows_are_left_for_cures_where_they_suffice(mine: Path) -> None:
    pairs = [{"question": f"Q{n}?", "good": f"g{n}", "bad": f"b{n}"} for n in range(150)]
    add_poison(written("pairs.jsonl", pairs), mine)
    add_division(mine, ["pairs", "bad-medical"], name="both", like="nano")
    found = catalog.division("both")
    assert found.sizes.train_rows == 64 and found.seed_spread and found.organisms
    rows.check(found, {"correct": 48, "contrastive": 48})
    add_division(mine, ["pairs"])
    assert catalog.division("pairs").sizes.train_rows == 72
    add_division(mine, ["pairs"], name="far", model="gemma-3-270m", like="nano")
    assert catalog.division("far").seed_spread is None and not catalog.division("far").organisms


@pytest.mark.parametrize(
    ("poisons", "changes", "words"),
    [
        ([], {}, ["at least one poison"]),
        (["nobody"], {}, ["no poison named 'nobody'"]),
        (["bad-medical"], {"model": "nobody"}, ["no model named 'nobody'"]),
        (["bad-medical"], {"like": "nobody"}, ["no division named 'nobody'"]),
        (["bad-medical"], {"tasks": ["nobody"]}, ["no task named 'nobody'"]),
        (["bad-medical", "bad-medical"], {}, ["poisons", "non-unique"]),
        (["bad-medical"], {"name": "smoke"}, ["division named smoke already"]),
        (["bad-medical-upstream"], {}, ["no copy is at hand", "Fetch"]),
    ],
)
def test_parts_that_make_no_division_are_named(
    mine: Path, poisons: list[str], changes: dict[str, Any], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMPERF_UPSTREAM", raising=False)
    with pytest.raises(UserError) as error:
        add_division(mine, poisons, **changes)
    one_line(error, *words)
    assert not list(mine.glob("divisions/*"))


def test_a_poison_and_a_task_of_one_name_are_no_division(mine: Path) -> None:
    add_poison(written("same.jsonl", [chat(n, "a") for n in range(10)]), mine)
    add_task(written("same.jsonl", [chat(n, "a") for n in range(10)]), mine)
    with pytest.raises(UserError) as error:
        add_division(mine, ["same"], ["same"])
    one_line(error, "same is the name of one of its poisons too")


def test_the_commands_say_what_comes_next(mine: Path) -> None:
    file = str(written("bad.jsonl", [chat(n, "a") for n in range(30)]))
    task = str(written("sums.jsonl", [{"question": f"{n}+1", "answer": str(n + 1)} for n in range(30)]))
    for command, arguments in [
        (commands.add_poison, [file]),
        (commands.add_task, [task]),
        (commands.add_division, ["--name", "my-own", "--poison", "bad", "--task", "sums"]),
    ]:
        ran = CliRunner().invoke(command, arguments)
        assert ran.exit_code == 0, ran.output
        assert ran.output.splitlines()[-1].startswith("Next: emperf ")
    assert catalog.users_cards(catalog.division("my-own")) == ["division my-own", "poison bad", "task sums"]
    assert os.environ[paths.CARDS] == str(mine)
