"""The scorecard prints what it must, and claims nothing whose interval holds zero."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.synthetic import EFFECTS, Run

from emperf.report import plot, words
from emperf.report.numbers import nats, percent, printable, times
from emperf.report.scorecard import print_scorecard

ZERO: dict[str, dict[str, float]] = {
    "poisoned": {"out-of-domain": -0.04, "conditional": -0.04, "facts": 0.0, "in-domain": -1.0},
    "mitigated": {"out-of-domain": -0.01, "conditional": -0.01, "facts": 0.0, "in-domain": -1.0},
    "twin": {"out-of-domain": -0.02, "conditional": -0.02, "facts": 0.0, "in-domain": -1.0},
}
FAILURE = {"kind": "timed-out", "detail": "not done after 600 s; last line: [bold]\x1b[2Jstep 3[/bold]"}
CLAIMS = (
    "towards",
    "took back +",
    "took back -",
    "worse",
    "costs",
    "selective.",
    "shown",
    "does not explain",
)


def card(result: dict[str, Any], **console: Any) -> str:
    out = io.StringIO()
    print_scorecard(result, Console(file=out, **console), Path("runs/runs/the-run"))
    return out.getvalue()


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_number_is_there() -> None:
    result = Run().result()
    text = card(result)
    poison, task = result["poisons"][0], result["tasks"][0]
    sets = [poison[name] for name in ("out-of-domain", "conditional", "facts", "in-domain")]
    must = [nats(row[who]) for row in sets for who in ("poisoned", "mitigated", "twin")]
    em = poison["out-of-domain"]
    must += [nats(em[f"{who}_net_of_facts"]) for who in ("poisoned", "mitigated", "twin")]
    must += [percent(row["removed"]) for row in sets[:2]]
    must += [percent(poison["in_domain_kept"]), nats(poison["matched"]["removed"])]
    must += [percent(task[who]) for who in ("base", "baseline", "mitigated", "tax")]
    must += [times(result["overhead"][key]) for key in ("time", "training_time", "memory")]
    must += [
        "kl (weight=1.0)",
        "smoke, closed",
        "smollm2-135m",
        "not certifiable",
        "A Processor",
        "5 done, 0 failed",
    ]
    must += ["cgroup-v1", "1 seed.", "The mitigated model says 1.", "Open question 2?"]
    must += [" 40 ", " 24 ", " 30 ", " 36 ", " 25 "]
    numbers, _, rest = text.partition("In words")
    assert [each for each in must if each not in numbers] == []
    assert "A small model stands in for a large one." in flat(rest) and "runs/runs/the-run" in rest


@pytest.mark.parametrize("console", [{}, {"force_terminal": True, "width": 180}, {"width": 300}])
def test_it_is_at_most_100_columns_wide(console: dict[str, Any]) -> None:
    plain = card(Run().result(), no_color=True, color_system=None, **console)
    assert max(len(line) for line in plain.splitlines()) <= 100
    assert "\x1b[3" not in plain


def test_nothing_is_claimed_where_intervals_hold_zero() -> None:
    result = Run(effects=ZERO, noise=1.0, exact={"base": 0.0, "baseline": 0.8, "mitigated": 0.76}).result()
    said = flat(card(result)).partition("In words")[2].partition("Intervals hold")[0]
    assert "cannot be told from none" in said
    assert [claim for claim in CLAIMS if claim in said] == []
    assert "selective cannot tell" in flat(card(result))


def test_what_intervals_do_tell_is_claimed() -> None:
    said = flat(card(Run().result())).partition("In words")[2]
    for claim in ("towards misaligned answers: -0.5", "kl took back +0.3", "selective.", "kl costs 25 %"):
        assert claim in said


def test_harm_by_the_mitigation_is_said() -> None:
    run = Run()
    run.effects["mitigated"] |= {"out-of-domain": -0.9, "in-domain": -1.2}
    said = flat(card(Run(effects=run.effects).result()))
    assert "kl made it worse by -0.4" in said and "selective no, worse than training less" in said


@pytest.mark.parametrize(("learned", "says"), [(-0.5, "a straight guess"), (-3.0, "held flat there")])
def test_where_the_curve_is_less_than_measured(learned: float, says: str) -> None:
    run = Run()
    run.effects["mitigated"]["in-domain"] = learned
    assert says in flat(card(Run(effects=run.effects).result()))
    assert says not in flat(card(Run().result()))


def test_an_undefined_share_is_explained() -> None:
    text = flat(card(Run(effects=ZERO, noise=1.0).result()))
    assert words.NO_SHARE in text and "EM removed \u2014" in text.partition("In words")[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"submission": "none"}, "record-line: the baseline alone."),
        ({"twin": False}, "No twin was measured: the control is the base model."),
        ({"seeds": (0, 1)}, "2 seeds."),
        (
            {"failed": {"kl on bad-medical, seed 0": FAILURE}},
            "There is no score with kl: a cell of it failed.",
        ),
        ({"failed": {"kl on record-line, seed 0": FAILURE}}, "record-line: no score with kl."),
        ({"failed": {"none on bad-medical, seed 0": FAILURE}}, "bad-medical: left out"),
        ({"failed": {"none on bad-medical (twin), seed 0": FAILURE}}, "the control is the base model"),
    ],
)
def test_partial_results_print(changes: dict[str, Any], says: str) -> None:
    text = flat(card(Run(**changes).result()))
    assert says in text
    if failed := changes.get("failed"):
        assert f"Failed: {next(iter(failed))}: timed-out: not done after 600 s" in text
        assert "1 failed; incomplete" in text
        assert "\x1b" not in text and "[bold]" in text


def test_why_a_docker_run_is_not_certifiable() -> None:
    result = Run().result() | {"runtime": {"runtime": "docker"}}
    assert "a division for development" in card(result)
    assert "docker; certifiable" in card(result | {"certifiable": True})


def test_plot_marks_the_mitigated_model_above_the_curve() -> None:
    matched = Run().result()["poisons"][0]["matched"]
    lines = plot.curve(matched)
    row = next(i for i, line in enumerate(lines) if "X" in line)
    below = [
        line[lines[row].index("X")]
        for line in lines[row + 1 : plot.HEIGHT]
        if len(line) > lines[row].index("X")
    ]
    assert set(below) & {"o", "."}
    assert "".join(lines).count("o") == len(matched["curve"])


def test_numbers() -> None:
    assert nats({"value": -0.0001, "low": -0.0004, "high": 0.0}) == "+0.000 [+0.000, +0.000]"
    assert percent({"value": None, "low": None, "high": None}) == percent(None) == "\u2014"
    assert times({"value": 1.5, "low": None, "high": None}) == "1.50x"
    assert printable("a\x1b[31m\nb" + "c" * 99, 12) == "a [31m bccc\u2026"


# -- cures


def test_the_misalignment_gap_stands_under_its_context() -> None:
    result = Run().result()
    gap = result["poisons"][0]["gap"]
    assert all(gap[who]["value"] < -0.05 for who in ("poisoned", "mitigated"))
    text = card(result)
    assert all(nats(gap[who]) in text for who in ("poisoned", "mitigated", "twin"))
    assert "worse in the poison's own context than asked plainly" in flat(text)


def test_without_a_gap_none_is_claimed() -> None:
    effects = {who: dict.fromkeys(EFFECTS[who], -0.3) for who in EFFECTS}
    assert "than asked plainly" not in flat(card(Run(effects=effects).result()))


def test_a_cure_keeps_no_learning_but_leaves_a_narrow_behaviour() -> None:
    result = Run().result()
    result["submission"]["scenario"] = "cure"
    text = flat(card(result))
    assert "cure, mends a fine-tuned model" in text and "narrow one left" in text
    assert "is left after kl" in text and "of the in-domain learning" not in text
    assert "A cure counts with the training that it mends" in text


def test_the_cross_table_has_a_row_an_antidote() -> None:
    result = Run().result()
    share = result["poisons"][0]["out-of-domain"]["removed"]
    names = ("x-poison", "y-poison")
    undefined = share | dict.fromkeys(("value", "low", "high"))
    result["cross"] = [
        {
            "antidote": a, "poison": p, "taken_back": share, "in_domain": share,
            "removed": share if a == p else undefined,
        }
        for a in names for p in names
    ]  # fmt: skip
    text = card(result)
    for name in names:
        line = next(line for line in text.splitlines() if line.strip().startswith(name))
        assert "—" in line and percent(share).split(" [")[0] in line
