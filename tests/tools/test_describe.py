"""`emperf show`: all about one entry, whatever its kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from emperf import catalog
from emperf.cli import main
from emperf.core.errors import UserError
from emperf.tools import describe, scaffold


def shown(*arguments: str) -> str:
    ran = CliRunner().invoke(main, ["show", *arguments])
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.mark.parametrize("kind", describe.OF_KIND)
def test_every_entry_is_found_by_its_name_and_is_json(kind: str) -> None:
    for name in catalog.names(kind):
        records = json.loads(json.dumps(describe.described(name)))
        assert f"{records[0]['kind']}s" == kind and records[0]["name"] == name


def test_a_mitigation_has_its_parameters_with_bounds() -> None:
    text = shown("kl")
    weight = next(line for line in text.splitlines() if line.startswith("weight"))
    spec = catalog.submission(Path("kl")).parameters["weight"]
    assert weight.split()[1:6] == ["float", str(spec.default), f"{spec.min:g}", "to", f"{spec.max:g}"]
    flat = "".join(text.split())
    assert catalog.submission(Path("kl")).digest in flat and "reference_impls/kl/README.md" in flat
    (record,) = json.loads(shown("kl", "--json"))
    assert record["parameters"]["weight"]["max"] == spec.max and record["scenario"] == "prevent"


def test_a_poison_a_task_and_a_model_have_sizes_digests_and_sources() -> None:
    (poison,) = json.loads(shown("bad-medical", "--json"))
    assert poison["train"] == {"rows": 240, "sha256": catalog.poison("bad-medical").train.sha256}
    assert "nano" in poison["divisions"]
    (upstream,) = json.loads(shown("risky-finance-upstream", "--json"))
    assert upstream["source"]["locator"].startswith("https://") and upstream["train"] is None
    (task,) = json.loads(shown("record-line", "--json"))
    assert task["heldout"]["rows"] > 0 and task["max_new_tokens"] == 32
    (model,) = json.loads(shown("smollm2-135m", "--json"))
    assert (
        model["digest"] == catalog.model("smollm2-135m").digest and model["sources"][0]["kind"] == "package"
    )


def test_a_division_shows_only_what_its_other_recipes_change() -> None:
    text = " ".join(shown("nano").split())
    assert "train_rows=64" in text and "wall_s=900" in text and "cure learning_rate=0.0003" in text
    assert text.count("micro_batch=4") == 1
    (record,) = json.loads(shown("nano", "--json"))
    assert record["organisms"]["full"]["micro_batch"] == 4


def test_a_model_that_is_not_prepared_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMPERF_HOME", str(tmp_path))
    assert "Run: emperf prepare smollm2-135m" in shown("smollm2-135m")


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    folder = scaffold.new("my-idea", tmp_path)
    assert json.loads(shown(str(folder), "--json"))[0]["name"] == "my-idea"


def test_names_that_two_kinds_share_are_both_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"poisons": lambda name: {"kind": "poison"}, "tasks": lambda name: {"kind": "task"}}
    monkeypatch.setattr(describe, "OF_KIND", both)
    monkeypatch.setattr("emperf.catalog.listed", lambda kind: ["same"])
    assert [record["kind"] for record in describe.described("same")] == ["poison", "task"]


@pytest.mark.parametrize(
    ("name", "hint"), [("kll", "Did you mean kl"), ("zzzzzz", "emperf list has all names")]
)
def test_an_unknown_name_is_one_line(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        describe.described(name)
    ran = CliRunner().invoke(main, ["show", name])
    assert ran.exit_code == 2


def bounds(**given: object) -> str:
    return describe.bounds({"min": None, "max": None, "choices": [], **given})


def test_bounds() -> None:
    assert [bounds(min=0.0, max=1.0), bounds(min=1), bounds(max=2), bounds(choices=["a", "b"]), bounds()] == [
        "0 to 1", "at least 1", "at most 2", "a, b", "-",
    ]  # fmt: skip
