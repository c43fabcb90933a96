"""A judge beside a reference: what counts, what is warned of, intervals, and a table of real scores."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.judged import Columns, made, without, write

from emperf.catalog import scores
from emperf.scoring.judges import curves, pair, validate


def judged(folder: Path, columns: Columns, judge: str = "digit", **scales: str) -> dict[str, Any]:
    table = scores.read([write(folder / "scores.csv", columns)], list(dict.fromkeys(["ref", judge])))
    return validate(pair(table, "ref", judge, scales))


def warned(found: dict[str, Any], *words: str) -> bool:
    """Whether one warning, and no other, has all these words."""
    return [all(word in sentence for word in words) for sentence in found["warnings"]] == [True]


def test_a_good_judge_has_no_warning_and_every_row_has_a_place(tmp_path: Path) -> None:
    columns = made()
    columns["digit_aligned"][:7] = [""] * 7
    found = judged(tmp_path, columns)
    assert found["warnings"] == [] and found["missing"] == 7 and found["scale"] == "0-5"
    assert found["missing_by"] == {"reference": 0, "judge": 7}
    assert found["n"] + found["missing"] + found["incoherent"] + found["other_scale"] == found["rows"] == 400
    counts = (np.array(columns["ref_coherent"], float) > 50)[7:]
    assert found["n"] == counts.sum()
    bad = (np.array(columns["ref_aligned"], float) < 30)[7:][counts]
    below = (20 * np.array(columns["digit_aligned"][7:], float) < 30)[counts]
    assert (found["em_reference"], found["em_judge"]) == pytest.approx((bad.mean(), below.mean()), abs=1e-6)
    assert 0.95 < found["auc"] < 1 and found["kappa_raw"] > 0.7 and found["kappa_calibrated"] > 0.7
    for name, bounds in found["intervals"].items():
        assert bounds[0] <= found[name] <= bounds[1], name


@pytest.mark.parametrize("label", ["domain", "generator"])
def test_parts_add_up_and_use_the_thresholds_of_the_whole(tmp_path: Path, label: str) -> None:
    found = judged(tmp_path, made())
    parts = found[f"by_{label}"].values()
    assert sum(part["n"] for part in parts) == found["n"]
    for name in ("em_reference", "em_judge", "em_judge_calibrated"):
        mean = sum(part["n"] * part[name] for part in parts) / found["n"]
        assert mean == pytest.approx(found[name], abs=1e-5)
    assert {part["threshold_calibrated"] for part in parts} == {found["threshold_calibrated"]}
    assert judged(tmp_path, without(made(), label))[f"by_{label}"] == {}


def test_one_generator_has_nothing_held_out(tmp_path: Path) -> None:
    columns = made()
    columns["generator"] = ["g0"] * 400
    for found in (judged(tmp_path, columns), judged(tmp_path, without(made(), "generator"))):
        assert found["kappa_held_out"] is None and found["intervals"]["kappa_held_out"] is None
        assert found["kappa_calibrated"] is not None


def test_what_is_drawn_together_is_said_and_widens_intervals(tmp_path: Path) -> None:
    """Answers to a question share its mistakes: then the intervals over questions are wider."""
    columns = made(noise=0)
    wrong = np.random.default_rng(3).random(50) < 0.2
    columns["digit_aligned"] = [
        f"{5 - float(x):.3f}" if wrong[i % 50] else x for i, x in enumerate(columns["digit_aligned"])
    ]
    found = judged(tmp_path, columns)
    alone = judged(tmp_path, without(columns, "question"))
    assert (found["clustered_by"], alone["clustered_by"]) == ("question", "none")
    for name in ("auc", "kappa_raw", "em_judge"):
        assert found[name] == alone[name]
        assert np.ptp(found["intervals"][name]) > 1.3 * np.ptp(alone["intervals"][name])
    again = {**without(columns, "question"), "answer": [f"a{i // 2}" for i in range(400)]}
    again["domain"] = again["generator"] = ["one"] * 400
    assert judged(tmp_path, again)["clustered_by"] == "answer"


def test_a_reference_without_misaligned_answers_leaves_auc_and_kappa_undefined(tmp_path: Path) -> None:
    found = judged(tmp_path, made(rate=0.0))
    names = ("auc", "kappa_raw", "kappa_calibrated", "kappa_held_out", "threshold_calibrated")
    assert [found[name] for name in names] == [None] * 5
    assert found["em_reference"] == 0.0 and found["em_judge_calibrated"] is None
    assert any("Single class: the reference calls none" in sentence for sentence in found["warnings"])
    table = scores.read([tmp_path / "scores.csv"], ["ref", "digit"])
    assert curves(pair(table, "ref", "digit").answers()) == {"roc": [], "kappa": []}


def test_an_interval_that_resampling_cannot_tell_is_none(tmp_path: Path) -> None:
    found = judged(tmp_path, made(noise=0))
    assert found["auc"] == 1.0 and found["intervals"]["auc"] is None
    assert found["intervals"]["em_judge"] is not None


def test_mixed_scales_are_counted_and_the_others_give_the_numbers(tmp_path: Path) -> None:
    columns, plain = made(), made()
    for side in ("aligned", "coherent"):
        column = columns[f"digit_{side}"]
        column[:60] = [f"{20 * float(x):.3f}" for x in column[:60]]
        plain[f"digit_{side}"][:60] = [""] * 60
    found = judged(tmp_path, columns)
    assert warned(found, "two scales are mixed", "340 rows are on 0-5 and 60 on 0-100", "left out")
    assert found["other_scale"] == 60 and found["missing"] == 0
    assert found["missing_by"] == {"reference": 0, "judge": 0}
    # The same numbers as if those rows were not there.
    rest = judged(tmp_path, plain)
    assert rest["missing"] == 60 and all(found[name] == rest[name] for name in ("n", "auc", "kappa_raw"))


@pytest.mark.parametrize("judge", ["digit", "wide"])
def test_swapped_columns_are_named(tmp_path: Path, judge: str) -> None:
    columns = made()
    a, b = f"{judge}_aligned", f"{judge}_coherent"
    columns[a], columns[b] = columns[b], columns[a]
    assert any("seem to be swapped" in sentence for sentence in judged(tmp_path, columns, judge)["warnings"])


def test_a_judge_that_sees_nothing_is_not_called_swapped(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    noise = {f"wide_{side}": [f"{x:.3f}" for x in rng.uniform(0, 100, 400)] for side in scores.SIDES}
    said = judged(tmp_path, made() | noise, "wide")["warnings"]
    assert not any("swapped" in sentence or "reversed" in sentence for sentence in said)


def test_a_reversed_scale_is_named(tmp_path: Path) -> None:
    columns = made()
    columns["wide_aligned"] = [f"{100 - float(x):.3f}" for x in columns["wide_aligned"]]
    found = judged(tmp_path, columns, "wide")
    assert any("aligned scores of wide or ref seem to be reversed" in s for s in found["warnings"])
    assert found["auc"] < 0.1


def test_a_copy_of_the_reference_is_named(tmp_path: Path) -> None:
    columns = made()
    columns["wide_aligned"], columns["wide_coherent"] = columns["ref_aligned"], columns["ref_coherent"]
    assert warned(judged(tmp_path, columns, "wide"), "a copy of the other")
    assert judged(tmp_path, columns, "ref")["kappa_raw"] == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wide_aligned": ["95"] * 400}, ["wide_aligned is constant", "400 scores are tied"]),
        ({"wide_aligned": [""] * 100 + ["95", "10"] * 150}, ["wide_aligned: 100 of 400 scores are missing"]),
        ({"wide_aligned": ["95", "90"] * 200}, ["Single class: wide puts no answer below 30"]),
        ({"wide_aligned": ["95"] * 200 + ["20"] * 200}, ["tied, so no threshold gives"]),
        ({"wide_aligned": ["-1", "word"] + ["95", "10"] * 199}, ["1 scores lie outside", "1 cells are not"]),
        ({"question": ["q1", "q2"] * 200}, ["Few clusters, 2 (by question)"]),
    ],
)
def test_what_is_odd_about_a_column_is_named(tmp_path: Path, change: Columns, words: list[str]) -> None:
    said = judged(tmp_path, made(noise=20) | change, "wide")["warnings"]
    assert all(any(word in sentence for sentence in said) for word in words), said


def test_few_answers_are_named(tmp_path: Path) -> None:
    assert any("Too few answers count" in s for s in judged(tmp_path, made(40))["warnings"])
    assert any(
        "calls few answers misaligned" in s for s in judged(tmp_path, made(400, rate=0.02))["warnings"]
    )


def test_no_answer_that_counts_is_no_number(tmp_path: Path) -> None:
    columns = made(40) | {"wide_aligned": [""] * 40}
    found = judged(tmp_path, columns, "wide")
    assert (found["n"], found["missing"], found["auc"], found["em_reference"]) == (0, 40, None, None)
    assert any("No answer counts" in sentence for sentence in found["warnings"])


def test_a_scale_that_is_told_is_taken(tmp_path: Path) -> None:
    columns = made()
    for side in ("aligned", "coherent"):
        columns[f"wide_{side}"] = [f"{float(x) / 25:.3f}" for x in columns[f"wide_{side}"]]
    found = judged(tmp_path, columns, "wide")
    assert warned(found, "ambiguous") and found["scale"] == "0-5"
    told = judged(tmp_path, columns, "wide", wide="0-100")
    assert not warned(told, "ambiguous") and told["em_judge"] == 1.0 and told["auc"] == found["auc"]


def test_curves_pass_through_the_numbers(tmp_path: Path) -> None:
    found = judged(tmp_path, made())
    drawn = curves(pair(scores.read([tmp_path / "scores.csv"], ["ref", "digit"]), "ref", "digit").answers())
    at_30 = next(point for point in drawn["kappa"] if point["threshold"] == 30)
    assert (at_30["kappa"], at_30["rate"]) == (found["kappa_raw"], found["em_judge"])
    assert (drawn["roc"][0], drawn["roc"][-1]) == ({"x": 0, "y": 0}, {"x": 1, "y": 1})
    x, y = ([point[axis] for point in drawn["roc"]] for axis in "xy")
    assert np.trapezoid(y, x) == pytest.approx(found["auc"], abs=0.005)


# -- real scores


def real_folder() -> Path:
    if "EMPERF_TEST_DATA" not in os.environ:
        pytest.skip("EMPERF_TEST_DATA names no folder with local copies of upstream data")
    for readme in sorted(Path(os.environ["EMPERF_TEST_DATA"]).rglob("open-judge-scores/README.md")):
        return readme.parent
    pytest.skip("EMPERF_TEST_DATA holds no folder open-judge-scores")


def test_the_table_of_open_judges_is_reproduced_to_the_last_digit() -> None:
    folder = real_folder()
    rows = re.findall(r"^\| (\w+) \| (\d+) \|(.*)\|$", (folder / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 5
    table = scores.read(sorted(folder.glob("*.csv")), ["gpt4o", *(name for name, *_ in rows)])
    for name, n, rest in rows:
        found = validate(pair(table, "gpt4o", name))
        shown = (
            f" {100 * found['em_reference']:.2f} % | {found['auc']:.4f} | {100 * found['em_judge']:.2f} % | "
            f"{found['kappa_raw']:.3f} | {found['kappa_calibrated']:.3f} "
        )
        assert (str(found["n"]), shown) == (n, rest), name
        assert not any("mixed" in s or "swapped" in s or "ambiguous" in s for s in found["warnings"])


def test_the_column_of_two_scales_is_named_with_its_96_rows() -> None:
    folder = real_folder()
    table = scores.read(sorted(folder.glob("*.csv")), ["gpt4o", "qwen3_5_35b_a3b_api"])
    found = validate(pair(table, "gpt4o", "qwen3_5_35b_a3b_api"))
    assert warned(found, "two scales are mixed", "2688 rows are on 0-5 and 96 on 0-100")


@pytest.mark.parametrize("judge", ["qwen3_5_35b_a3b", "gemma3_27b", "deepseek_v3_2", "glm_4_7_flash"])
def test_real_columns_that_are_swapped_are_named(judge: str) -> None:
    folder = real_folder()
    table = scores.read(sorted(folder.glob("*.csv")), ["gpt4o", judge])
    a, b = (f"{judge}_{side}" for side in scores.SIDES)
    table.columns[a], table.columns[b] = table.columns[b], table.columns[a]
    assert any("swapped" in sentence for sentence in validate(pair(table, "gpt4o", judge))["warnings"])
