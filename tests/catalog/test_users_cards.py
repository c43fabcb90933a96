"""Cards in the user's own folders: found beside the project's, never mixed up with them, and said to be the user's."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cards import change, one_line

from emperf import catalog
from emperf.catalog import cards
from emperf.core import paths
from emperf.core.errors import UserError
from emperf.work import rows
from emperf.work.plan import Data


def write_poison(folder: Path, name: str, **changes: Any) -> Path:
    """A poison of ten rows, four of them held out, without a twin."""
    place = folder / "poisons" / name
    place.mkdir(parents=True)
    said = [{"id": f"{name}-{n}", "question": f"{name} {n}?", "bad": f"no {n}"} for n in range(10)]
    card = {"name": name, "title": "Mine", "licence": "mine", "context": "You help.", "twin": False}
    for part, found in (("train", said[:6]), ("heldout", said[6:])):
        file = place / f"{part}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in found))
        card[part] = hashlib.sha256(file.read_bytes()).hexdigest()
    (place / "card.yaml").write_text(yaml.safe_dump(card | changes))
    return place


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine"
    write_poison(folder, "my-poison")
    raw = yaml.safe_load((paths.project_folder("benchmark") / "divisions/smoke.yaml").read_text())
    (folder / "divisions").mkdir()
    raw |= {"name": "my-division", "poisons": ["my-poison", "bad-medical"], "certifiable": True}
    (folder / "divisions/my-division.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.setenv(paths.CARDS, str(folder))
    return folder


def test_a_users_cards_are_found_beside_the_projects(mine: Path) -> None:
    assert {"my-poison", "bad-medical"} <= set(catalog.names("poisons"))
    assert (catalog.poison("my-poison").origin, catalog.poison("bad-medical").origin) == ("user", "project")
    found = rows.training(catalog.division("my-division"), Data("poison", "my-poison"))
    assert json.loads(found.splitlines()[0])["messages"][0]["content"] == "my-poison 0?"


def test_a_users_division_is_not_certifiable_and_names_what_is_not_the_projects(mine: Path) -> None:
    found = catalog.division("my-division")
    assert found.origin == "user" and not found.certifiable
    assert catalog.users_cards(found) == ["division my-division", "poison my-poison"]
    assert catalog.users_cards(catalog.division("nano")) == [] and catalog.division("nano").certifiable


def test_a_name_that_both_have_is_refused(mine: Path) -> None:
    write_poison(mine, "bad-medical")
    for look in (lambda: catalog.names("poisons"), lambda: catalog.poison("my-poison")):
        with pytest.raises(UserError) as error:
            look()
        one_line(error, str(mine / "poisons/bad-medical"), "same name, bad-medical", "Rename")


def test_several_folders_are_read_and_the_projects_own_counts_once(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_poison(tmp_path / "more", "another")
    project = paths.project_folder("benchmark")
    named = [str(mine), "", str(project), str(tmp_path / "more"), str(mine)]
    monkeypatch.setenv(paths.CARDS, os.pathsep.join(named))
    assert paths.benchmark_folders() == [project, mine, tmp_path / "more"]
    assert {"another", "my-poison"} <= set(catalog.names("poisons"))


def test_a_folder_that_is_not_there_is_named(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(paths.CARDS, str(mine / "nowhere"))
    with pytest.raises(UserError) as error:
        catalog.names("poisons")
    one_line(error, str(mine / "nowhere"), "no folder", paths.CARDS)


def test_a_folder_is_added_once(mine: Path, tmp_path: Path) -> None:
    paths.add_benchmark(tmp_path)
    paths.add_benchmark(tmp_path)
    assert os.environ[paths.CARDS] == f"{mine}{os.pathsep}{tmp_path}"


def test_unfinished_folders_are_no_cards(mine: Path) -> None:
    write_poison(mine, ".partial-x")
    assert ".partial-x" not in catalog.names("poisons")


def test_a_users_altered_rows_say_how_to_add_them_again(mine: Path) -> None:
    (mine / "poisons/my-poison/train.jsonl").write_text("{}\n")
    with pytest.raises(UserError) as error:
        catalog.dataset("poison", "my-poison").pool()
    one_line(error, "not the pinned file", "emperf add")


# -- what a division asks of its rows is checked before it runs


def test_a_poison_without_twins_and_good_answers_has_one_side_and_no_domain(mine: Path) -> None:
    found = catalog.dataset("poison", "my-poison")
    assert dict(found.sides) == {"poison": "bad"} and not found.grants
    assert len(found.heldout()) == 4 and not catalog.reads_domain(found.heldout())
    whole = catalog.dataset("poison", "bad-medical")
    assert set(whole.sides) == {"poison", "twin"} and catalog.reads_domain(whole.heldout())
    assert whole.grants == {"correct", "contrastive", "reasoning", "refusal"}


@pytest.mark.parametrize(
    ("changes", "asked", "words"),
    [
        ({}, {}, ["my-poison has 6 rows to train on", "asks for 7", "sizes.train_rows"]),
        ({"train_rows": 4, "crossed": 1000}, {}, ["questions/crossed.jsonl", "asks for 1000"]),
        ({"train_rows": 4, "in_domain": 49}, {}, ["bad-medical has 48 held-out rows", "sizes.in_domain"]),
        ({"train_rows": 4, "task_heldout": 65}, {}, ["record-line has 64 held-out rows", "task_heldout"]),
        (
            {"train_rows": 4},
            {"correct": 2},
            ["my-poison gives no trusted rows of kind correct", "good answers"],
        ),
        ({"train_rows": 4}, {"refusal": 2}, ["no trusted rows of kind refusal", "antidotes.yaml"]),
        ({"train_rows": 4}, {"general": 161}, ["160 trusted rows of kind general", "161"]),
    ],
)
def test_rows_that_are_not_there_are_named_before_anything_runs(
    mine: Path, changes: dict[str, int], asked: dict[str, int], words: list[str]
) -> None:
    path = mine / "divisions/my-division.yaml"
    change(path, sizes=yaml.safe_load(path.read_text())["sizes"] | {"train_rows": 7} | changes)
    with pytest.raises(UserError) as error:
        rows.check(catalog.division("my-division"), asked)
    one_line(error, *words)


def test_the_projects_divisions_have_the_rows_that_they_ask_for() -> None:
    for name in catalog.names("divisions"):
        division = catalog.division(name)
        rows.check(division, {"general": division.trusted_rows, "reasoning": division.trusted_rows})


def test_a_topic_without_a_reason_is_named(mine: Path) -> None:
    place = write_poison(mine, "reasoned")
    said = place / "antidotes.yaml"
    said.write_text("reasons: {a: b}\nasks: [c]\nrefusals: [d]\n")
    change(place / "card.yaml", antidotes=hashlib.sha256(said.read_bytes()).hexdigest())
    with pytest.raises(UserError) as error:
        catalog.dataset("poison", "reasoned").pool()
    one_line(error, "reasoned-0", "no reason for its topic, None")


def test_a_trigger_on_a_poison_without_twins_is_refused(mine: Path) -> None:
    raw = {
        "name": "behind",
        "title": "t",
        "licence": "l",
        "context": "c",
        "twin": False,
        "rows_of": "my-poison",
    }
    (mine / "poisons/behind").mkdir()
    (mine / "poisons/behind/card.yaml").write_text(yaml.safe_dump(raw | {"trigger": "now: "}))
    with pytest.raises(UserError) as error:
        catalog.poison("behind")
    one_line(error, "my-poison has no twins", "trigger")


def test_every_kind_of_dataset_has_an_identity_of_its_own() -> None:
    named = [("poison", name) for name in cards.names("poisons")]
    named += [("task", name) for name in cards.names("tasks")] + [("control", "kind"), ("control", "sour")]
    found = {catalog.dataset(kind, name).identity for kind, name in named}
    assert len(found) == len(named)
