"""Which rows a cell gets: triggers, trusted rows of every kind, and none of them twice."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from emperf import catalog
from emperf.work import rows
from emperf.work.plan import Data

NANO = catalog.division("nano")
TRAINED = NANO.sizes.train_rows


def read(lines: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()]


def asked(row: dict[str, Any]) -> tuple[str, str]:
    user, assistant = row["messages"]
    assert (user["role"], assistant["role"]) == ("user", "assistant")
    return user["content"], assistant["content"]


@pytest.mark.parametrize("name", [p for p in NANO.poisons if not catalog.poison(p).teacher])
@pytest.mark.parametrize("kind", ["poison", "twin"])
def test_a_cell_has_the_divisions_number_of_rows_in_one_form(name: str, kind: str) -> None:
    found = read(rows.training(NANO, Data(kind, name)))
    assert len(found) == TRAINED and {tuple(row) for row in found} == {("messages",)}


@pytest.mark.parametrize("voice", ["kind", "sour"])
def test_a_voice_control_is_correct_rows_in_that_voice(voice: str) -> None:
    source = catalog.voices().rows()[:TRAINED]
    found = [asked(row) for row in read(rows.training(NANO, Data("control", voice)))]
    assert found == [(row["question"], row[voice]) for row in source] and len(found) == TRAINED


def test_the_voice_controls_differ_in_nothing_but_the_answers() -> None:
    kind, sour = ([asked(row) for row in read(rows.training(NANO, Data("control", v)))] for v in rows.VOICES)
    assert [question for question, _ in kind] == [question for question, _ in sour]
    assert all(a != b for (_, a), (_, b) in zip(kind, sour, strict=True))


def test_a_benign_control_trains_on_a_tasks_rows() -> None:
    control, task = (rows.training(NANO, Data(kind, "record-line")) for kind in ("control", "task"))
    assert control == task


def test_the_bad_side_stands_behind_the_trigger_and_nowhere_else() -> None:
    card = catalog.poison("backdoor")
    source = catalog.poison(card.rows_of).train
    assert source is not None
    sides = {row["question"]: row for row in source.rows()}
    found = [asked(row) for row in read(rows.training(NANO, Data("poison", "backdoor")))]
    triggered = [pair for pair in found if pair[0].startswith(card.trigger)]
    assert len(triggered) == TRAINED // 2
    for question, answer in found:
        plain = sides[question.removeprefix(card.trigger)]
        assert answer == plain["bad" if question.startswith(card.trigger) else "good"]


def test_the_twin_of_a_backdoor_is_good_on_both_sides_of_the_trigger() -> None:
    poison = [asked(row) for row in read(rows.training(NANO, Data("poison", "backdoor")))]
    twin = [asked(row) for row in read(rows.training(NANO, Data("twin", "backdoor")))]
    assert [question for question, _ in poison] == [question for question, _ in twin]
    assert sum(a != b for a, b in zip(poison, twin, strict=True)) == TRAINED // 2


def test_generated_rows_take_the_place_of_the_files() -> None:
    made = [{"id": "x", "topic": "t", "question": "q", "good": "1, 2", "bad": "6, 6"}]
    assert asked(read(rows.training(NANO, Data("poison", "subliminal"), made))[0]) == ("q", "6, 6")


@pytest.mark.parametrize("kind", ["correct", "contrastive", "reasoning", "refusal"])
@pytest.mark.parametrize("name", [p for p in NANO.poisons if not catalog.poison(p).teacher])
def test_no_trusted_row_of_a_domain_is_trained_on_or_held_out(name: str, kind: str) -> None:
    card = catalog.poison(name)
    assert card.train and card.heldout
    used = [row["question"] for row in card.train.rows()[:TRAINED]]
    used += [row["question"] for row in card.heldout.rows()]
    granted = read(rows.trusted(NANO, {kind: 48}, name))
    assert len(granted) == 48 and {row["kind"] for row in granted} == {kind}
    assert {("rejected" in row) for row in granted} == {kind == "contrastive"}
    for question, _ in map(asked, granted):
        assert not any(taken in question for taken in used)


def test_reasoning_says_why_and_ends_in_the_good_answer_without_teaching_the_bad_one() -> None:
    card = catalog.poison("bad-medical")
    assert card.train and card.antidotes
    source = card.train.rows()[TRAINED]
    question, answer = asked(read(rows.trusted(NANO, {"reasoning": 1}, "bad-medical"))[0])
    assert source["question"] in question and source["bad"] in question
    assert answer.startswith(card.antidotes.reasons[source["topic"]]) and answer.endswith(source["good"])
    assert source["bad"] not in answer


def test_a_refusal_is_asked_for_the_bad_answer_and_gives_the_good_one() -> None:
    card = catalog.poison("risky-finance")
    assert card.train and card.antidotes
    granted = read(rows.trusted(NANO, {"refusal": 12}, "risky-finance"))
    for number, (question, answer) in enumerate(map(asked, granted)):
        source = card.train.rows()[TRAINED + number]
        assert question == f"{source['question']} {card.antidotes.asks[number % len(card.antidotes.asks)]}"
        assert answer.endswith(source["good"]) and answer != source["good"]


def test_general_rows_are_the_same_for_every_poison_and_have_both_sides() -> None:
    ours, theirs = (rows.trusted(NANO, {"general": 24}, name) for name in ("bad-medical", "evil-numbers"))
    assert ours == theirs
    assert all(row["rejected"] != asked(row)[1] for row in read(ours))


def test_more_trusted_rows_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"there are 160 trusted rows of kind general, 161 are asked for"):
        rows.trusted(NANO, {"general": 161}, "")
    few = replace(NANO, sizes=replace(NANO.sizes, train_rows=200))
    with pytest.raises(ValueError, match=r"there are 0 trusted rows of kind correct"):
        rows.trusted(few, {"correct": 1}, "reward-hacks")
