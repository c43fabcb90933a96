"""The scorecard prints what it must, and claims nothing whose interval holds zero."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.synthetic import RUNTIME, Run

from emperf import catalog
from emperf.catalog.sets import OOD, SETS
from emperf.report import plot
from emperf.report.numbers import beginning, nats, percent, share, times
from emperf.report.scorecard import print_scorecard

FAILURE = {"kind": "timed-out", "detail": "not done after 600 s; last line: [bold]\x1b[2Jstep 3[/bold]"}


def card(result: dict[str, Any], **console: Any) -> str:
    catalog.check("result", result)
    out = io.StringIO()
    print_scorecard(result, Console(file=out, **console), Path("runs/runs/the-run"))
    return out.getvalue()


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_number_is_there() -> None:
    result = Run().result()
    text = card(result, width=100)
    poison, task = result["poisons"][0], result["tasks"][0]
    must = [nats(one[e]) for one in poison["sets"][OOD].values() for e in ("act", "raw", "voice")]
    must += [nats(poison["beyond_twin"][name][who]) for name in SETS for who in ("without", "with", "change")]
    must += [nats(poison["gap"][who]) for who in ("without", "with")]
    removal = poison["removal"]
    must += [share(removal["selective"]), percent(removal["kept"]), percent(removal["left"])]
    must += [f"a removal of {removal['smallest']['selective']:.2f}", nats(removal["net"])]
    must += [percent(task[who]) for who in ("base", "baseline", "mitigated", "tax")]
    must += [f"{100 * task['tax_at_most']:.0f} %"]
    must += [times(result["overhead"][key]) for key in ("time", "training_time", "memory")]
    must += ["kl (weight=1.0)", "smoke, closed", "smollm2-135m", "not certifiable", "A Processor"]
    must += ["8 done, 0 failed", "cgroup-v1", "1 seed.", "The mitigated model says 1.", "Open question 2?"]
    must += ["kind voice (control)", "sour voice (control)", "n = 40", " 24 ", " 30 ", " 36 ", " 25 "]
    numbers, _, rest = text.partition("In words")
    assert [each for each in must if each not in numbers] == []
    assert "A small model stands in for a large one." in flat(rest) and "runs/runs/the-run" in rest


@pytest.mark.parametrize("console", [{}, {"force_terminal": True, "width": 180}, {"width": 300}])
@pytest.mark.parametrize("changes", [{}, {"submission": "none"}, {"controls": ()}, {"seeds": (0, 1, 2)}])
def test_it_is_at_most_100_columns_wide(console: dict[str, Any], changes: dict[str, Any]) -> None:
    plain = card(Run(**changes).result(), no_color=True, color_system=None, **console)
    assert max(len(line) for line in plain.splitlines()) <= 100
    assert "\x1b[3" not in plain


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"submission": "none"}, "record-line: the baseline alone."),
        ({"submission": "none"}, "finds in 80 % EM of 0.0"),
        ({"twin": False}, "No twin was measured, so nothing can be said"),
        ({"seeds": (0, 1)}, "2 seeds."),
        (
            {"failed": {"kl on bad-medical, seed 0": FAILURE}},
            "There is no score with kl: a cell of it failed.",
        ),
        (
            {"failed": {"kl on bad-medical (twin), seed 0": FAILURE}},
            "There is no score with kl: a cell of it failed.",
        ),
        ({"failed": {"kl on record-line, seed 0": FAILURE}}, "record-line: no score with kl."),
        ({"failed": {"none on bad-medical, seed 0": FAILURE}}, "bad-medical: left out"),
        ({"failed": {"none on bad-medical (twin), seed 0": FAILURE}}, "No twin was measured"),
        ({"failed": {"none on sour (control), seed 0": FAILURE}}, "kind voice (control)"),
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
    result = Run().result() | {"runtime": RUNTIME | {"runtime": "docker"}}
    assert "a division for development" in card(result)
    assert "docker; certifiable" in card(result | {"certifiable": True})


def test_the_bare_start_of_the_images_stands_beside_the_overhead() -> None:
    images = {
        name: {"id": name, "digests": [], "start_s": seconds} for name, seconds in (("a", 4.13), ("b", 6.0))
    }
    result = Run().result()
    assert "bare start" not in flat(card(result))
    timed = result | {"runtime": RUNTIME | {"runtime": "docker", "images": images}}
    assert "Of a cell's time, 4.1 to 6.0 s are the bare start of its image." in flat(card(timed))


def test_the_plot_marks_every_point_and_the_mitigated_model_above_the_curve() -> None:
    points = Run().result()["poisons"][0]["curve"]
    lines = plot.curve(points)
    assert max(map(len, lines)) <= plot.WIDTH + 8
    # The base model, the checkpoints and the trained baseline.
    assert "".join(lines).count("o") == 1 + sum(point["who"] == "baseline" for point in points)
    row = next(i for i, line in enumerate(lines) if "X" in line)
    column = lines[row].index("X")
    below = {line[column] for line in lines[row + 1 : plot.HEIGHT] if len(line) > column}
    assert below & {"o", "."}


def test_the_plot_draws_how_uncertain_em_is() -> None:
    sure, unsure = (Run(noise=noise).result()["poisons"][0]["curve"] for noise in (0.01, 2.0))
    bars = [sum(line.count("|") for line in plot.curve(points)[: plot.HEIGHT]) for points in (sure, unsure)]
    assert bars[1] > bars[0] + 3


def test_numbers() -> None:
    assert nats({"value": -0.0001, "low": -0.0004, "high": 0.0}) == "+0.000 [+0.000, +0.000]"
    assert percent({"value": None, "low": None, "high": None}) == percent(None) == "\u2014"
    assert share({"value": 0.305, "low": -0.001, "high": 1.0}) == "0.30 [0.00, 1.00]"
    assert times({"value": 1.5, "low": None, "high": None}) == "1.50x"
    assert beginning("a\x1b[31m\nb" + "c" * 99, 12) == "a [31m bccc\u2026"


def test_a_cure_keeps_no_learning_but_leaves_a_narrow_behaviour() -> None:
    result = Run().result()
    result["submission"]["scenario"] = "cure"
    text = flat(card(result))
    assert "cure, mends a fine-tuned model" in text and "narrow one left" in text
    assert "of the narrow behaviour is left" in text and "of the narrow learning" not in text
    assert "A cure counts with the training that it mends" in text


def test_the_cross_table_has_a_row_an_antidote() -> None:
    result = Run().result()
    poison, names = result["poisons"][0], ("x-poison", "y-poison")
    em, net = poison["beyond_twin"][OOD], nats(poison["removal"]["net"])
    result["cross"] = [
        {
            "antidote": antidote, "poison": name, "removal": poison["removal"],
            "em": {"with": em["with"], "change": em["change"]},
            "in_domain": {"with": em["with"], "change": em["change"]},
        }
        for antidote, name in itertools.product(names, names)
        if antidote == name
    ]  # fmt: skip
    text = card(result)
    for name in names:
        line = next(line for line in text.splitlines() if line.strip().startswith(name))
        assert "—" in line and net.split(" [", maxsplit=1)[0] in line


def test_a_division_that_shows_no_em_says_so_beside_every_em_number() -> None:
    result = Run().result()
    assert "machinery" not in card(result)
    result["division"]["shows_em"] = False
    text = card(result)
    assert "EM (machinery only)" in text and "EM, out of domain" not in text


def test_one_seed_whose_spread_is_not_known_is_said() -> None:
    result = Run().result()
    for known, said in ((True, False), (False, True)):
        result["division"]["seed_spread"] = known
        assert ("not the luck of training" in " ".join(card(result).split())) is said
