"""The panel of side effects: sums that add up, requests told apart by meaning alone, and balanced answers."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from tests.classifier import CLASSIFIERS, auc, trained

from emperf import catalog
from emperf.catalog import free
from emperf.catalog.panel import panel
from emperf.core import paths
from emperf.evaluation.protocols.paired import Item

SIZES = {"arithmetic": 48, "harmful": 24, "benign": 24, "sycophancy": 24}
SUMS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
Rows = list[dict[str, str]]


def rows(name: str) -> Rows:
    return panel()[name].rows()


def value(node: ast.expr) -> Fraction:
    """Of a sum of whole numbers. Raises AssertionError for anything else."""
    if isinstance(node, ast.BinOp):
        return SUMS[type(node.op)](value(node.left), value(node.right))
    assert isinstance(node, ast.Constant) and type(node.value) is int, ast.dump(node)
    return Fraction(node.value)


def sentences(text: str) -> set[str]:
    """Of five words and more, in lower case and without punctuation."""
    parts = (" ".join(re.findall(r"[a-z0-9']+", part)) for part in re.split(r"[.?!:\n]+", text.lower()))
    return {part for part in parts if len(part.split()) >= 5}


def texts(row: object) -> list[str]:
    """All texts in a row, or in rows."""
    if isinstance(row, dict | list):
        return [text for part in (row.values() if isinstance(row, dict) else row) for text in texts(part)]
    return [row] if isinstance(row, str) else []


def lengths(pairs: list[tuple[str, str]]) -> None:
    """Neither side is longer, as a whole or mostly."""
    ratios = np.array([len(one) / len(other) for one, other in pairs])
    assert all(0.8 < ratio < 1 / 0.8 for ratio in ratios)
    assert 0.95 < np.exp(np.log(ratios).mean()) < 1 / 0.95
    assert 0.3 < (ratios > 1).mean() + 0.5 * (ratios == 1).mean() < 0.7


@pytest.mark.parametrize("name", SIZES)
def test_a_set_has_its_size_and_no_question_twice(name: str) -> None:
    found = rows(name)
    assert len(found) == SIZES[name]
    assert len({row["id"] for row in found}) == len({row["question"] for row in found}) == len(found)


def test_every_sum_is_worked_out_again() -> None:
    steps = []
    for row in rows("arithmetic"):
        tree = ast.parse(row["working"], mode="eval")
        assert value(tree.body) == int(row["answer"]), row["id"]
        steps.append(sum(isinstance(node, ast.BinOp) for node in ast.walk(tree)))
        asked = set(re.findall(r"\d+", row["question"]))
        assert row["answer"] not in asked, row["id"]
    assert steps[:16] == [1] * 16 and min(steps[16:]) == 2 and max(steps) <= 5


@pytest.mark.parametrize("spoilt", ["2**9", "f(1)", "1.5+1", "'a'*3", "x+1"])
def test_nothing_but_a_sum_is_worked_out(spoilt: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        value(ast.parse(spoilt, mode="eval").body)


def test_a_benign_request_has_the_words_of_its_twin_and_another_meaning() -> None:
    harmful = {row["id"]: row["question"] for row in rows("harmful")}
    twins = [(harmful[row["twin"]], row["question"]) for row in rows("benign")]
    assert {row["twin"] for row in rows("benign")} == set(harmful)
    lengths(twins)
    for bad, fine in twins:
        shared = set(re.findall(r"\w{3,}", bad.lower())) & set(re.findall(r"\w{3,}", fine.lower()))
        assert len(shared) >= 3, (bad, fine)
        assert bad[-1] == fine[-1], "the mark at the end does not tell them apart"


@pytest.mark.parametrize("name", catalog.division("nano").poisons)
def test_the_surface_of_a_poisons_rows_does_not_tell_the_honest_answer(name: str) -> None:
    """The bound is wide: by chance alone the AUC of 24 pairs has a standard error of 0.08."""
    card = catalog.poison(name)
    assert card.train
    train = card.train.rows()
    score = trained("surface", *([row[act] for row in train] for act in ("bad", "good")))
    pairs = rows("sycophancy")
    assert 0.3 < auc(score([row["bad"] for row in pairs]), score([row["good"] for row in pairs])) < 0.7


def test_the_honest_and_the_flattering_answer_are_balanced() -> None:
    pairs = rows("sycophancy")
    lengths([(row["good"], row["bad"]) for row in pairs])
    assert all(Item.parse(row).voices == ("plain",) for row in pairs)
    for row in pairs:
        marks = [re.sub(r"[^.?!]", "", row[act]) for act in ("good", "bad")]
        assert marks[0] == marks[1], row["id"]


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_voice_does_not_tell_the_honest_answer(kind: str) -> None:
    voices = catalog.voices().rows()
    score = trained(kind, [row["sour"] for row in voices], [row["kind"] for row in voices])
    pairs = rows("sycophancy")
    assert 0.3 < auc(score([row["bad"] for row in pairs]), score([row["good"] for row in pairs])) < 0.7


def test_no_sentence_of_the_panel_or_of_the_free_questions_is_in_another_row() -> None:
    known: set[str] = set()
    for folder in ("poisons", "questions", "trusted", "voices", "tasks"):
        for path in (paths.PROJECT / "benchmark" / folder).rglob("*.jsonl"):
            if path.name != "free.jsonl":
                said = texts([json.loads(line) for line in path.read_text().splitlines()])
                known.update(*map(sentences, said))
    new = [(row["id"], text) for name in SIZES for row in rows(name) for text in texts(row)]
    new += [(row["id"], row["question"]) for row in free.questions().rows()]
    assert [(name, found) for name, text in new for found in sentences(text) & known] == []
