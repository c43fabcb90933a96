"""Submissions: declared, checked and never executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cards import change, one_line

from emperf import catalog
from emperf.core.errors import UserError
from emperf.experiments import session

SUBMISSION: dict[str, Any] = {
    "name": "mine",
    "title": "A mitigation",
    "submitter": "somebody",
    "scenario": "prevent",
    "source": "none",
    "mitigation": "mitigation.py:Mine",
    "parameters": {"weight": {"type": "float", "default": 0.5, "min": 0.0, "max": 2.0}},
}
IMAGE = "registry.example/mine@sha256:" + "0" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mitigation.py").write_text("raise SystemExit('executed')\n")
    (tmp_path / "mine/submission.yaml").write_text(yaml.safe_dump(SUBMISSION))
    return tmp_path / "mine"


def test_a_submission_is_read_and_not_executed(folder: Path) -> None:
    found = catalog.submission(folder)
    assert (found.name, found.trusted, found.values({})) == ("mine", {}, {"weight": 0.5})


@pytest.mark.parametrize(
    "image",
    [
        IMAGE, "sha256:" + "0" * 64, "0123456789ab", "mine", "mine:latest", "localhost:5000/team/mine_1:v2",
        "team/mine:1@sha256:" + "0" * 64,
    ],
)  # fmt: skip
def test_an_image_stands_in_for_a_class_by_digest_id_or_tag(folder: Path, image: str) -> None:
    change(folder / "submission.yaml", mitigation=None, image=image)
    assert catalog.submission(folder).image == image


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": IMAGE}, ["mitigation or image, not both"]),
        ({"mitigation": None}, ["'mitigation' is a required property"]),
        ({"mitigation": None, "image": "mine latest"}, ["image", "NAME@sha256"]),
        ({"mitigation": None, "image": "--privileged"}, ["image", "NAME@sha256"]),
        ({"mitigation": None, "image": "mine@sha256:abc"}, ["image", "NAME@sha256"]),
        ({"mitigation": None, "image": "mine:1\n"}, ["image", "NAME@sha256"]),
        ({"mitigation": "mitigation.py"}, ["mitigation", "FILE.py:CLASS"]),
        ({"mitigation": "../other/mitigation.py:Mine"}, ["mitigation", "inside the submission's folder"]),
        ({"mitigation": "absent.py:Mine"}, ["absent.py", "not in the folder"]),
        ({"scenario": "repair"}, ["scenario", "prevent"]),
        ({"titel": "x"}, ["'titel' was unexpected"]),
        ({"trusted": {"general": 0}}, ["trusted.general", "minimum"]),
        ({"trusted": {"correct": 8}}, ["correct", "scenario cure"]),
        ({"trusted": {"general": 8.0}}, ["trusted.general", "8.0 is not of type 'integer'"]),
        ({"name": "mine\n"}, ["name", "lower-case letters"]),
        ({"name": "m" * 250}, ["name", "at most 64 characters, not 250"]),
        ({"parameters": {"w" * 250: {"type": "bool", "default": True}}}, ["parameters", "at most 64"]),
        ({"parameters": {1: {"type": "bool", "default": True}}}, ["parameters", "key 1", "quotes"]),
        ({"parameters": {"w": {"type": "float", "default": 1, "min": 0, "max": float("inf")}}}, ["w.max"]),
        ({"parameters": {"w": {"type": "float", "default": 1, "min": float("nan"), "max": 2}}}, ["w.min"]),
        ({"title": "\udcff"}, ["title", "no text in UTF-8"]),
        ({"controls": {"random": {"nosuch": 1}}}, ["controls.random", "nosuch"]),
        ({"parameters": {"weight": {"type": "float", "default": 1.0}}}, ["parameters.weight", "'min'"]),
        ({"parameters": {"weight": {"type": "float", "default": 3, "min": 0, "max": 2}}}, ["at most 2"]),
        ({"parameters": {"w": {"type": "int", "default": True, "min": 0, "max": 2}}}, ["type int"]),
        ({"parameters": {"w": {"type": "complex", "default": 1}}}, ["parameters.w.type", "complex"]),
        ({"parameters": {"w": {"type": "str", "default": "c", "choices": ["a"]}}}, ["one of"]),
    ],
)
def test_a_malformed_submission_is_one_line(folder: Path, changes: dict[str, Any], words: list[str]) -> None:
    change(folder / "submission.yaml", **changes)
    with pytest.raises(UserError) as error:
        catalog.submission(folder)
    one_line(error, str(folder / "submission.yaml"), "submission.schema.json", *words)


def test_a_folder_that_is_no_submission_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        catalog.submission(tmp_path)
    one_line(error, str(tmp_path), "submission.yaml", "emperf new")


@pytest.mark.parametrize("value", [-0.1, 2.1, "3", float("nan"), "nan", "inf", "heavy", True, None, [1]])
def test_a_parameter_out_of_its_bounds_is_refused(folder: Path, value: Any) -> None:
    with pytest.raises(UserError) as error:
        catalog.submission(folder).values({"weight": value})
    one_line(error, "mine: weight must be", str(folder / "submission.yaml"))


@pytest.mark.parametrize(("value", "read"), [("1e-4", 1e-4), (1, 1.0), ("2", 2.0), (0.0, 0.0)])
def test_a_parameter_is_read_as_its_type(folder: Path, value: Any, read: float) -> None:
    found = catalog.submission(folder).values({"weight": value})["weight"]
    assert found == read
    assert isinstance(found, float)


def test_an_unknown_parameter_is_answered_with_the_known_ones(folder: Path) -> None:
    with pytest.raises(UserError) as error:
        catalog.submission(folder).values({"wieght": 1})
    one_line(error, str(folder / "submission.yaml"), "'wieght'", "It has: weight")


@pytest.mark.parametrize(("families", "fits"), [([], True), (["qwen2", "llama"], True), (["gpt2"], False)])
def test_a_model_of_a_family_it_cannot_handle_is_refused(
    folder: Path, families: list[str], fits: bool
) -> None:
    change(folder / "submission.yaml", families=families or None)
    nano, mine = catalog.division("nano"), catalog.submission(folder)
    if fits:
        session.plan_run(nano, folder, {})
        return
    with pytest.raises(UserError) as error:
        session.plan_run(nano, folder, {})
    one_line(error, "mine handles models of gpt2", "smollm2-135m is of llama")
    assert mine.families == ("gpt2",)


def test_a_control_and_another_setting_are_called_by_name(folder: Path) -> None:
    change(folder / "submission.yaml", controls={"light": {"weight": 0.1}})
    mine = catalog.submission(folder)
    assert mine.called(mine.values({})) == "mine"
    assert mine.called(mine.values({"weight": "0.1"})) == "mine (light)"
    assert mine.called(mine.values({"weight": 0.2})) == "mine (weight=0.2)"


def test_text_that_is_no_utf8_is_refused_as_a_parameter(folder: Path) -> None:
    change(folder / "submission.yaml", parameters={"word": {"type": "str", "default": "a"}})
    with pytest.raises(UserError) as error:
        catalog.submission(folder).values({"word": "\udcff"})
    one_line(error, "mine: word must be text in UTF-8")


@pytest.mark.parametrize("name", ["x" * 300, "mine\udcff"])
def test_a_name_that_no_folder_can_have_is_no_submission(name: str) -> None:
    with pytest.raises(UserError) as error:
        catalog.submission(Path(name))
    one_line(error, "no submission")


def test_a_file_whose_name_is_no_utf8_is_refused(folder: Path) -> None:
    (folder / "odd\udcff.txt").write_text("")
    with pytest.raises(UserError) as error:
        catalog.submission(folder)
    one_line(error, str(folder), "no UTF-8")
