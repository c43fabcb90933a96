"""An evaluation in a terminal, and what it says of its judges."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.evaluated import made

from emperf.report.evaluation import caution_of, print_evaluation

Json = dict[str, Any]


def printed(found: Json, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_evaluation(found, console, Path("runs/eval-mine-1"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_model_stands_with_its_numbers() -> None:
    found = made("tiny")
    text = printed(found, 400)
    mine = next(m for m in found["models"] if m["name"] == "mine")
    act = mine["sets"]["out-of-domain"]["act"]
    assert f"{act['value']:+.3f} [{act['low']:+.3f}, {act['high']:+.3f}]" in text
    rate = found["judged"]["models"]["mine"]["tiny"]["rates"]["primary"]
    assert f"{100 * rate['value']:.0f} % [" in text
    assert all(len(line) <= 80 for line in printed(found).splitlines())
    less = found["judged"]["beyond"]["mine"]["tiny"]["twin"]
    assert less["low"] > 0.2 and "less twin" in text


def test_judges_that_agree_and_how_far() -> None:
    text = flat(printed(made("tiny", "other")))
    assert "tiny and other agree with kappa 1.00 on 240 answers" in text
    assert "the rank correlation of 3 models' rates is 1.00" in text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"measure": False}, "measure nothing"),
        ({"measure": True, "calibration": None}, "is not calibrated"),
        (
            {
                "measure": True,
                "calibration": {"reference": "gpt-4o", "kappa": 0.91, "n": 2588, "threshold": 33.3},
            },
            "calibrated on gpt-4o: kappa 0.91 on 2588 answers, threshold 33.3",
        ),
    ],
)
def test_no_judge_goes_without_a_word_on_what_it_is(changes: Json, says: str) -> None:
    judge = made("tiny")["judged"]["judges"][0] | changes
    assert says in caution_of(judge)


def test_without_a_control_it_says_so() -> None:
    found = made("tiny")
    assert "No control was measured" not in printed(found)
    found["models"] = [model for model in found["models"] if model["role"] != "control"]
    assert "No control was measured" in flat(printed(found))


def test_a_model_without_a_rate_says_why() -> None:
    found = made("tiny")
    found["judged"]["models"]["mine"]["tiny"]["why_none"] = (
        "90 of 100 judgements are missing; at most 10% may be."
    )
    assert "mine: no rate. 90 of 100 judgements are missing" in flat(printed(found))


def test_the_grid_and_the_side_effects_stand_in_tables_of_their_own() -> None:
    text = printed(made("tiny"), 300)
    assert "The same questions, asked otherwise" in text and "inoculated" in text
    table = text[text.index("Side effects") : text.index("Sums:")]
    (mine,) = (line for line in table.splitlines() if line.split()[:1] == ["mine"])
    assert "50 % [" in mine and "100 % [" in mine and " 0 % [" in mine
    assert "harmful" in table and "benign" in table
    bare = made("tiny")
    for model in bare["models"]:
        model["panel"] = None
        model["sets"] = model["sets"] and {"out-of-domain": model["sets"]["out-of-domain"]}
    assert "Side effects" not in printed(bare) and "asked otherwise" not in printed(bare)
