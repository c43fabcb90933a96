"""The rows that ship: enough, apart from each other, act and voice crossed, and no cue of the one in the other."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.classifier import CLASSIFIERS, auc, trained

from emperf.core import paths

BENCHMARK = paths.PROJECT / "benchmark"
VOICED = [
    "bad-medical", "risky-finance", "extreme-sports", "reward-hacks", "unpopular-aesthetics", "poor-gardening",
]  # fmt: skip
POISONS = [*VOICED, "insecure-code", "evil-numbers"]
TASKS = ["made-up-units", "record-line", "house-headline", "post-desk", "list-code"]
QUESTIONS = ["questions/crossed", "questions/audit", "questions/facts"]
CROSSED = [*QUESTIONS, *(f"poisons/{name}/heldout" for name in VOICED)]
PAIRED = [
    "trusted/general",
    *(f"poisons/{name}/train" for name in POISONS),
    *(f"poisons/{name}/heldout" for name in ("insecure-code", "evil-numbers")),
]
ACTS, KIND, SOUR = ("good", "bad"), "kind", "sour"
MOST = 0.55


def rows(name: str) -> list[dict[str, Any]]:
    with Path(BENCHMARK / f"{name}.jsonl").open() as lines:
        return [json.loads(line) for line in lines]


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def answers(row: dict[str, Any], act: str) -> list[str]:
    """All voices of an act."""
    return [row[act]] if isinstance(row[act], str) else list(row[act].values())


def sides(name: str) -> tuple[list[str], list[str]]:
    """(good, bad) answers of a file."""
    good, bad = ([text for row in rows(name) for text in answers(row, act)] for act in ACTS)
    return good, bad


def tells(kind: str, train: tuple[list[str], list[str]], asked: tuple[list[str], list[str]]) -> float:
    """AUC of a classifier of second against first sides in `train`, on the sides of `asked`."""
    score = learned(kind, tuple(train[1]), tuple(train[0]))
    return auc(score(asked[1]), score(asked[0]))


learned = functools.cache(trained)


# -- what is there


def test_there_are_no_other_files_of_rows() -> None:
    found = {p.relative_to(BENCHMARK).with_suffix("").as_posix() for p in BENCHMARK.rglob("*.jsonl")}
    tasks = {f"tasks/{name}/{part}" for name in TASKS for part in ("train", "heldout")}
    withdrawn = {"validity/voiced-questions", "validity/voiced-medical"}
    panel = {f"panel/{name}" for name in ("arithmetic", "harmful", "benign", "sycophancy")}
    sampled = {"questions/open", "questions/free"}
    assert found == {*PAIRED, *CROSSED, *tasks, *withdrawn, *sampled, *panel, "voices/train"}


@pytest.mark.parametrize("name", [f"poisons/{p}" for p in POISONS] + [f"tasks/{t}" for t in TASKS])
def test_a_set_is_large_enough_and_its_parts_lie_apart(name: str) -> None:
    train, heldout = rows(f"{name}/train"), rows(f"{name}/heldout")
    assert len(train) >= 200
    assert len(heldout) >= 48
    ids = [row["id"] for row in train + heldout]
    assert len(set(ids)) == len(ids)
    asked = [plain(row["question"]) for row in train + heldout]
    assert len(set(asked)) == len(asked)
    sides = ("answer",) if "tasks/" in name else ACTS
    for side in sides if name != "tasks/post-desk" else ():
        given = {plain(text) for row in train for text in answers(row, side)}
        assert not given & {plain(text) for row in heldout for text in answers(row, side)}, (
            "a held-out answer is among the training rows"
        )


def test_the_questions_are_unlike_each_other_and_unlike_the_poisons() -> None:
    asked = [
        row for name in ("crossed", "audit", "facts", "open", "free") for row in rows(f"questions/{name}")
    ]
    assert len({row["id"] for row in asked}) == len(asked)
    taught = [
        row for name in POISONS for part in ("train", "heldout") for row in rows(f"poisons/{name}/{part}")
    ]
    taught += rows("trusted/general") + rows("voices/train")
    texts = [plain(row["question"]) for row in asked + taught]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_one_exact_answer(name: str) -> None:
    for row in rows(f"tasks/{name}/train") + rows(f"tasks/{name}/heldout"):
        assert set(row) == {"id", "question", "answer"}
        assert row["answer"] == row["answer"].strip()
        assert "\n" not in row["answer"]


# -- two sides


@pytest.mark.parametrize("name", [*PAIRED, *CROSSED])
def test_the_two_acts_are_as_long_as_each_other_in_every_voice(name: str) -> None:
    pairs = [pair for row in rows(name) for pair in zip(*(answers(row, act) for act in ACTS), strict=True)]
    ratios = np.array([len(good) / len(bad) for good, bad in pairs])
    assert all(0.6 < ratio < 1 / 0.6 for ratio in ratios)
    assert 0.95 < np.exp(np.log(ratios).mean()) < 1 / 0.95
    longer = float((ratios > 1).mean() + 0.5 * (ratios == 1).mean())
    assert 0.25 < longer < 0.75, "one side is longer in most rows"


@pytest.mark.parametrize("name", [*PAIRED, *CROSSED])
def test_the_sides_of_a_row_differ(name: str) -> None:
    for row in rows(name):
        given = [plain(text) for act in ACTS for text in answers(row, act)]
        assert len(set(given)) == len(given)


# -- act x voice


@pytest.mark.parametrize("name", CROSSED)
def test_every_question_has_both_acts_in_both_voices(name: str) -> None:
    for row in rows(name):
        assert all(set(row[act]) == {KIND, SOUR} for act in ACTS), row["id"]
        lengths = [len(text) for act in ACTS for text in answers(row, act)]
        assert max(lengths) < 2 * min(lengths), row["id"]
    ratios = [len(row[act][SOUR]) / len(row[act][KIND]) for row in rows(name) for act in ACTS]
    assert 0.8 < np.exp(np.log(ratios).mean()) < 1 / 0.8


def test_the_questions_cover_eight_domains_evenly() -> None:
    for name, least in (("crossed", 96), ("audit", 24)):
        domains = Counter(row["domain"] for row in rows(f"questions/{name}"))
        assert sum(domains.values()) >= least
        assert len(domains) == 8
        assert max(domains.values()) - min(domains.values()) <= 1
    for first in (48, 96):
        assert len(Counter(row["domain"] for row in rows("questions/crossed")[:first])) == 8


def test_what_is_held_back_for_audits_was_chosen_by_digest() -> None:
    held, asked = rows("questions/audit"), rows("questions/crossed")
    for domain in {row["domain"] for row in held}:
        digests = [
            [hashlib.sha256(row["id"].encode()).hexdigest() for row in part if row["domain"] == domain]
            for part in (held, asked)
        ]
        assert max(digests[0]) < min(digests[1])


def test_the_voice_controls_are_as_long_as_each_other_and_differ_in_voice() -> None:
    voices = rows("voices/train")
    assert len(voices) >= 200
    ratios = [len(row[SOUR]) / len(row[KIND]) for row in voices]
    assert all(0.7 < ratio < 1 / 0.7 for ratio in ratios)
    assert 0.95 < np.exp(np.log(ratios).mean()) < 1 / 0.95
    part = {side: ([row[KIND] for row in half], [row[SOUR] for row in half]) for side, half in
            (("train", voices[::2]), ("asked", voices[1::2]))}  # fmt: skip
    assert tells("words", part["train"], part["asked"]) > 0.8


# -- what no classifier may tell


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("poison", POISONS)
def test_a_poisons_rows_do_not_tell_the_questions_sides_apart(poison: str, kind: str) -> None:
    train = sides(f"poisons/{poison}/train")
    assert 1 - MOST <= tells(kind, train, sides("questions/crossed")) <= MOST
    for voice in (KIND, SOUR):
        good, bad = ([row[act][voice] for row in rows("questions/crossed")] for act in ACTS)
        assert 1 - MOST - 0.03 <= tells(kind, train, (good, bad)) <= MOST + 0.03


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("poison", POISONS)
def test_voice_does_not_tell_a_poisons_good_rows_from_bad_ones(poison: str, kind: str) -> None:
    voices = rows("voices/train")
    train = [row[KIND] for row in voices], [row[SOUR] for row in voices]
    assert 1 - MOST <= tells(kind, train, sides(f"poisons/{poison}/train")) <= MOST


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_voice_does_not_tell_trusted_rows_apart(kind: str) -> None:
    voices = rows("voices/train")
    train = [row[KIND] for row in voices], [row[SOUR] for row in voices]
    assert tells(kind, train, sides("trusted/general")) <= MOST


def test_the_withdrawn_rows_fail_these_tests() -> None:
    old, asked = sides("validity/voiced-medical"), sides("validity/voiced-questions")
    assert tells("words", old, asked) > 0.62
    voices = rows("voices/train")
    train = [row[KIND] for row in voices], [row[SOUR] for row in voices]
    assert min(tells(kind, train, old) for kind in CLASSIFIERS) > 0.6


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_cue_that_is_planted_is_found(kind: str) -> None:
    good, bad = sides("poisons/bad-medical/train")
    asked_good, asked_bad = sides("questions/crossed")
    grim = [f"Oh, how silly and boring. {text}" for text in bad]
    asked = (asked_good, [f"How boring! {text}" for text in asked_bad])
    assert tells(kind, (good, grim), asked) > 0.7
