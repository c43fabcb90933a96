"""`emperf judge validate`: its JSON, its errors in one line, its plot."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.judged import made, write

from emperf.cli import main

KEYS = {
    "n", "auc", "kappa_raw", "kappa_calibrated", "em_reference", "em_judge", "missing", "warnings",
    "em_judge_calibrated", "threshold_calibrated", "kappa_held_out", "coherence", "by_domain", "by_generator",
    "intervals",
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "scores.csv", made(120))


def validate(*words: object) -> Result:
    return CliRunner().invoke(main, ["judge", "validate", *map(str, words)])


def test_one_judge_is_one_object(file: Path) -> None:
    ran = validate(file, "--reference", "ref", "--judge", "digit", "--json")
    found = json.loads(ran.stdout)
    assert ran.exit_code == 0 and set(found) >= KEYS
    assert validate(file, "--reference", "ref", "--judge", "digit", "--json").stdout == ran.stdout


def test_several_judges_are_a_list(file: Path) -> None:
    words = (file, "--reference", "ref", "--judge", "digit", "--judge", "wide", "--judge", "digit", "--json")
    found = json.loads(validate(*words).stdout)
    assert set(found) == {"judges"} and [one["judge"] for one in found["judges"]] == ["digit", "wide"]
    alone = json.loads(validate(file, "--reference", "ref", "--judge", "wide", "--json").stdout)
    assert alone == found["judges"][1]


def test_several_files_are_one_table(file: Path, tmp_path: Path) -> None:
    halves = [
        write(tmp_path / "a.csv", made(120), range(50)),
        write(tmp_path / "b.csv", made(120), range(50, 120)),
    ]
    words = ("--reference", "ref", "--judge", "digit", "--json")
    assert json.loads(validate(*halves, *words).stdout) == json.loads(validate(file, *words).stdout)


def test_json_has_no_nan_where_nothing_is_defined(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", made(60, rate=0.0))
    ran = validate(file, "--reference", "ref", "--judge", "digit", "--json")
    found = json.loads(ran.stdout, parse_constant=pytest.fail)
    assert ran.exit_code == 0 and found["auc"] is None and found["kappa_raw"] is None


def test_a_scale_may_be_told(file: Path) -> None:
    words = (file, "--reference", "ref", "--judge", "digit", "--json", "--scale", "digit=0-100")
    assert json.loads(validate(*words).stdout)["em_judge"] == 1.0


def test_a_plot_is_written_beside_the_table(file: Path, tmp_path: Path) -> None:
    ran = validate(file, "--reference", "ref", "--judge", "digit", "--plot", tmp_path / "a.svg")
    assert ran.exit_code == 0 and (tmp_path / "a.svg").read_text().startswith("<svg")
    assert "kappa held out" in " ".join(ran.stdout.split()) and "a.svg" in ran.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.csv", "--reference", "ref", "--judge", "digit"], "none.csv cannot be read"),
        (["FILE", "--reference", "gpt", "--judge", "digit"], "no column gpt_aligned"),
        (["FILE", "--reference", "ref", "--judge", "digit", "--scale", "other=0-5"], "names no judge"),
        (["FILE", "--reference", "ref", "--judge", "digit", "--scale", "digit"], "names no judge"),
        (["FILE", "--reference", "ref", "--judge", "digit", "--scale", "digit=0-7"], "no scale '0-7'"),
        (["FILE", "--reference", "ref", "--judge", "digit", "--plot", "a.pdf"], "no name of a picture"),
        (["FILE", "--reference", "ref", "--judge", "digit", "--plot", "no/where/a.svg"], "cannot be written"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(file: Path, words: list[str], said: str) -> None:
    ran = validate(*(file if word == "FILE" else word for word in words))
    assert ran.exit_code == 2 and ran.stdout == ""
    assert said in ran.stderr and ran.stderr.count("\n") == 1 and ran.stderr.startswith("emperf: ")


def test_the_page_shows_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/judges.md, on the real scores."""
    page = (Path(__file__).parents[2] / "docs/judges.md").read_text()
    said, table = re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[-2:]
    words = shlex.split(said)[3:]
    if "EMPERF_TEST_DATA" not in os.environ:
        pytest.skip("EMPERF_TEST_DATA names no folder with local copies of upstream data")
    folders = sorted(Path(os.environ["EMPERF_TEST_DATA"]).rglob("open-judge-scores"))
    if not folders:
        pytest.skip("EMPERF_TEST_DATA holds no folder open-judge-scores")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(folders[0])
    printed = validate(*words).stdout
    assert [line.rstrip() for line in printed.splitlines()] == table.splitlines()
