"""Cards and submissions: what ships loads, and every way to break a file gives one line with file and fix."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cards import change, one_line

from emperf import catalog
from emperf.catalog import free
from emperf.catalog.panel import panel
from emperf.core import paths, schemas
from emperf.core.errors import UserError
from emperf.training.job import Job, Lora, Recipe

SHIPPED = [("model", "models"), ("poison", "poisons"), ("task", "tasks"), ("division", "divisions")]
PART = {"locator": "part", "revision": "1", "sha256": "0" * 64, "file": "part/a"}


def source(**changes: Any) -> dict[str, Any]:
    """`sources` of a model card: one package in two parts, changed; None leaves a field out."""
    whole = {"kind": "package", "locator": "whole", "revision": "1", "sha256": "0" * 64}
    whole |= {"parts": [PART, {**PART, "locator": "other"}], **changes}
    return {"sources": [{key: value for key, value in whole.items() if value is not None}]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the benchmark that a test may spoil."""
    for name in ("benchmark", "spec", "reference_impls"):
        shutil.copytree(paths.PROJECT / name, tmp_path / name)
    monkeypatch.setenv("EMPERF_ROOT", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, folder in SHIPPED for name in catalog.names(folder)]
)
def test_every_shipped_card_loads(kind: str, name: str) -> None:
    found = getattr(catalog, kind)(name)
    assert (found.name, found.origin) == (name, "project")


def test_every_pinned_file_is_the_one_that_ships() -> None:
    cards = [catalog.poison(name) for name in catalog.names("poisons")]
    cards += [catalog.task(name) for name in catalog.names("tasks")]
    files = [file for card in cards for file in (card.train, card.heldout) if file]
    for file in [*files, *catalog.questions().values(), free.questions(), *panel().values()]:
        assert file.rows()


@pytest.mark.parametrize("name", catalog.names("divisions"))
def test_a_division_uses_only_what_ships_and_no_more_items_than_there_are(name: str) -> None:
    division = catalog.division(name)
    sizes, files = division.sizes, catalog.questions()
    catalog.model(division.model)
    for poison in map(catalog.poison, division.poisons):
        if poison.train and poison.heldout:
            assert sizes.train_rows <= len(poison.train.rows())
            assert sizes.in_domain <= len(poison.heldout.rows())
    for task in map(catalog.task, division.tasks):
        assert sizes.train_rows <= len(task.train.rows())
        assert sizes.task_heldout <= len(task.heldout.rows())
    assert sizes.conditional <= sizes.crossed <= len(files["crossed"].rows())
    assert sizes.facts <= len(files["facts"].rows())
    assert sizes.open <= len(files["open"].rows())


@pytest.mark.parametrize("name", catalog.names("mitigations"))
def test_every_reference_implementation_loads(name: str) -> None:
    found = catalog.submission(Path(name))
    assert found.name == name
    found.values({})


def test_schemas_are_schemas_and_describe_every_field() -> None:
    from jsonschema import Draft202012Validator

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if "properties" in node and node.get("type") == "object":
                assert node["additionalProperties"] is False, path
                for key, value in node["properties"].items():
                    described = isinstance(value, dict) and ("description" in value or "$ref" in value)
                    assert described, f"{path}.{key}"
            for key, value in node.items():
                walk(value, f"{path}.{key}")
        elif isinstance(node, list):
            for value in node:
                walk(value, path)

    mine = (
        "model", "poison", "task", "questions", "division", "submission", "job", "report", "rows", "antidotes",
        "forms", "others", "panel",
    )  # fmt: skip
    for name in mine:
        Draft202012Validator.check_schema(schemas.schema(name))
        walk(schemas.schema(name), name)


def test_job_json_keeps_its_schema() -> None:
    recipe = Recipe(lora=Lora(8, 16), learning_rate=1e-4, epochs=1, micro_batch=4, checkpoints=(0.5,))
    job = Job(job_id="0" * 16, seed=3, recipe=recipe, parameters={"weight": 0.1})
    schemas.check("job", json.loads(job.dumps()))
    with pytest.raises(ValueError, match="data"):
        schemas.check("job", json.loads(job.dumps()) | {"data": ""})


def test_a_package_in_parts_keeps_their_order(root: Path) -> None:
    path = root / "benchmark/models/gemma-3-270m.yaml"
    change(path, **source(sha256=None))
    (found,) = catalog.model("gemma-3-270m").sources
    assert (found.locator, found.sha256, found.file) == ("whole", "", "")
    parts = [catalog.Source("package", name, "1", "0" * 64, "part/a") for name in ("part", "other")]
    assert list(found.parts) == parts


# -- spoilt data and cards


def test_an_altered_row_is_refused(root: Path) -> None:
    path = root / "benchmark/poisons/bad-medical/train.jsonl"
    path.write_bytes(path.read_bytes().replace(b"a", b"e", 1))
    train = catalog.poison("bad-medical").train
    assert train
    with pytest.raises(UserError) as error:
        train.rows()
    one_line(error, str(path), "not the pinned file", "Restore it")


def test_a_missing_file_is_named(root: Path) -> None:
    path = root / "benchmark/questions/crossed.jsonl"
    path.unlink()
    with pytest.raises(UserError) as error:
        catalog.questions()["crossed"].rows()
    one_line(error, str(path), "cannot be read", "Restore it")


@pytest.mark.parametrize(("kind", "folder"), SHIPPED)
@pytest.mark.parametrize("name", ["nonesuch", "../models/smollm2-135m", ""])
def test_an_unknown_name_is_answered_with_the_known_ones(kind: str, folder: str, name: str) -> None:
    with pytest.raises(UserError) as error:
        getattr(catalog, kind)(name)
    one_line(error, f"no {kind} named {name!r}", catalog.names(folder)[0])


def test_an_unknown_division_names_those_there_are() -> None:
    with pytest.raises(UserError) as error:
        catalog.division("huge")
    one_line(error, "no division named 'huge'", "Choose one of", "smoke")


@pytest.mark.parametrize(
    ("card", "changes", "words"),
    [
        ("divisions/smoke.yaml", {"seed": 3}, ["smoke.yaml", "'seed' was unexpected"]),
        ("divisions/smoke.yaml", {"variant": "ajar"}, ["variant", "closed"]),
        ("divisions/smoke.yaml", {"name": "large"}, ["smoke.yaml", "name", "'large'"]),
        ("divisions/smoke.yaml", {"seeds": [1, 1]}, ["seeds", "non-unique"]),
        ("divisions/smoke.yaml", {"recipe": {"lora": {"r": 0, "alpha": 1}}}, ["recipe", "required"]),
        ("poisons/bad-medical/card.yaml", {"train": "abc"}, ["train", "64 hexadecimal digits"]),
        ("poisons/bad-medical/card.yaml", {"train": None}, ["card.yaml", "'train' is a required property"]),
        (
            "poisons/insecure-code-upstream/card.yaml",
            {"twin": True},
            ["twin", "an upstream poison has no twins"],
        ),
        ("tasks/record-line/card.yaml", {"max_new_tokens": 0}, ["max_new_tokens", "minimum"]),
        ("models/smollm2-135m.yaml", {"digest": "61c3"}, ["digest", "64 hexadecimal digits"]),
        ("models/gemma-3-270m.yaml", source(file="a"), ["sources.0", "file or parts, not both"]),
        ("models/gemma-3-270m.yaml", source(revision=None), ["sources.0", "'revision' is a required"]),
        ("models/gemma-3-270m.yaml", source(parts=None), ["sources.0", "'file' is a required property"]),
        ("models/gemma-3-270m.yaml", source(parts=[PART]), ["sources.0.parts", "too short"]),
        (
            "models/gemma-3-270m.yaml",
            source(parts=[PART, {**PART, "kind": "hub"}]),
            ["sources.0.parts.1", "'kind' was unexpected"],
        ),
        (
            "models/gemma-3-270m.yaml",
            source(parts=[PART, {**PART, "sha256": "e3b0"}]),
            ["sources.0.parts.1.sha256", "the part's wheel", "64 hexadecimal digits"],
        ),
        (
            "models/gemma-3-270m.yaml",
            source(parts=[PART, {k: v for k, v in PART.items() if k != "sha256"}]),
            ["sources.0.parts.1", "'sha256' is a required property"],
        ),
        (
            "models/gemma-3-270m.yaml",
            source(kind="hub", revision="0" * 40),
            ["sources.0", "only a package comes in parts"],
        ),
    ],
)
def test_a_malformed_card_is_one_line(
    root: Path, card: str, changes: dict[str, Any], words: list[str]
) -> None:
    path = root / "benchmark" / card
    change(path, **changes)
    kind = {"divisions": "division", "poisons": "poison", "tasks": "task", "models": "model"}[
        card.partition("/")[0]
    ]
    with pytest.raises(UserError) as error:
        getattr(catalog, kind)(path.parent.name if path.stem == "card" else path.stem)
    one_line(error, str(path), f"{kind}.schema.json", *words)


@pytest.mark.parametrize(
    ("card", "old", "new", "words"),
    [
        ("divisions/smoke.yaml", "variant: closed", "variant: closed\nvariant: open", ["'variant' is given twice"]),
        ("divisions/smoke.yaml", "  open: 2", "  open: 2\n  open: 3", ["line", "'open' is given twice"]),
        ("divisions/smoke.yaml", "open: 2", "open: 2.0", ["sizes.open", "2.0 is not of type 'integer'"]),
        ("divisions/smoke.yaml", "seeds: [0]", "seeds: [4294967296]", ["seeds.0", "maximum"]),
        ("divisions/smoke.yaml", "memory_gb: 6", "memory_gb: .inf", ["limits.memory_gb", "finite"]),
        ("divisions/smoke.yaml", "memory_gb: 6", "memory_gb: 1" + 400 * "0", ["smoke.yaml", "too large"]),
        ("divisions/smoke.yaml", "learning_rate: 0.0015", "learning_rate: .nan", ["learning_rate", "finite"]),
        ("divisions/smoke.yaml", "name: smoke", 'name: "smoke\\n"', ["name", "lower-case letters"]),
        ("divisions/smoke.yaml", "name: smoke", f"name: {'s' * 250}", ["name", "at most 64 characters"]),
        ("divisions/smoke.yaml", "closed", 'closed\n"\\ud800": 1', ["is no text"]),
        ("poisons/bad-medical/card.yaml", "title:", "rows_of: ../bad\ntitle:", ["rows_of", "name of the poison"]),
        ("poisons/backdoor/card.yaml", "rows_of: extreme-sports", "rows_of: backdoor", ["rows_of"]),
        ("poisons/backdoor/card.yaml", "rows_of: extreme-sports", "rows_of: risky-finance-upstream", ["no files"]),
        ("poisons/subliminal/card.yaml", "teacher: bad-medical", "teacher: subliminal", ["teacher"]),
        ("poisons/subliminal/card.yaml", "teacher: bad-medical", "teacher: nobody", ["no poison named 'nobody'"]),
        ("poisons/insecure-code-upstream/card.yaml", "file: data", "file: ../data", ["source.file", "inside"]),
        ("poisons/insecure-code-upstream/card.yaml", "file: data", "file: /data", ["source.file", "inside"]),
    ],
)  # fmt: skip
def test_a_slip_of_the_pen_in_a_card_is_one_line(
    root: Path, card: str, old: str, new: str, words: list[str]
) -> None:
    path = root / "benchmark" / card
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    kind = card.partition("/")[0].removesuffix("s")
    with pytest.raises(UserError) as error:
        getattr(catalog, kind)(path.parent.name if path.stem == "card" else path.stem)
    one_line(error, *words)
    assert len(str(error.value)) < 700


@pytest.mark.parametrize(
    "path", ["divisions/smoke.yaml", "questions/card.yaml", "poisons/backdoor/card.yaml"]
)
def test_a_folder_in_place_of_a_card_is_one_line(root: Path, path: str) -> None:
    card = root / "benchmark" / path
    card.unlink()
    card.mkdir()
    with pytest.raises(UserError) as error:
        {
            "d": lambda: catalog.division("smoke"),
            "q": catalog.questions,
            "p": lambda: catalog.poison("backdoor"),
        }[path[0]]()
    one_line(error, str(card), "no plain file")


@pytest.mark.parametrize("text", ["- a\n", "", "reasons: {a: 1}\nasks: [a]\nrefusals: [b]\n"])
def test_malformed_antidotes_are_one_line(root: Path, text: str) -> None:
    path = root / "benchmark/poisons/bad-medical/antidotes.yaml"
    path.write_text(text)
    pin = hashlib.sha256(path.read_bytes()).hexdigest()
    change(path.with_name("card.yaml"), antidotes=pin)
    with pytest.raises(UserError) as error:
        catalog.poison("bad-medical")
    one_line(error, str(path), "antidotes.schema.json")


def test_a_schema_that_is_missing_is_named(root: Path) -> None:
    (root / "spec/schemas/division.schema.json").unlink()
    with pytest.raises(UserError) as error:
        catalog.division("smoke")
    one_line(error, "division.schema.json")


@pytest.mark.parametrize("revision", ["main", "v1.0", "80c1196"])
def test_upstream_data_is_pinned_by_commit_never_by_branch(root: Path, revision: str) -> None:
    path = root / "benchmark/poisons/insecure-code-upstream/card.yaml"
    source = yaml.safe_load(path.read_text())["source"]
    change(path, source=source | {"revision": revision})
    with pytest.raises(UserError) as error:
        catalog.poison("insecure-code-upstream")
    one_line(error, str(path), "source.revision", "never a branch")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("name: [\n", "line 2"),
        ("", "the top level"),
        ("- a\n", "the top level"),
        ("name: \x00\n", "not valid YAML"),
    ],
)
def test_what_is_no_yaml_or_no_mapping_is_one_line(root: Path, text: str, word: str) -> None:
    path = root / "benchmark/divisions/smoke.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        catalog.division("smoke")
    one_line(error, str(path), word)


# -- parts, scenarios and organisms of a division


def test_nano_has_every_kind_of_poison_and_task_and_three_seeds() -> None:
    nano = catalog.division("nano")
    cards = [catalog.poison(name) for name in nano.poisons]
    assert nano.certifiable and len(nano.seeds) == 3 and len(nano.tasks) >= 5
    assert all(card.twin and card.antidotes for card in cards)
    assert [card.name for card in cards if card.trigger] == ["backdoor"]
    assert [card.name for card in cards if card.teacher] == ["subliminal"]
    lora = {name: recipe.lora for name, recipe in nano.organisms.items()}
    assert (
        lora["full"] is None
        and lora["rank-1"]
        and (lora["rank-1"].r, lora["rank-1"].modules) == (1, ("down_proj",))
    )


def test_a_part_of_a_division_is_no_longer_certifiable_and_has_the_same_digest() -> None:
    nano = catalog.division("nano")
    assert nano.part((), ()) is nano
    part = nano.part(("record-line", "bad-medical"), (1,))
    assert (part.poisons, part.tasks, part.seeds) == (("bad-medical",), ("record-line",), (1,))
    assert part.digest == nano.digest and not part.certifiable


@pytest.mark.parametrize(
    ("only", "seeds", "words"),
    [
        (("nosuch",), (), ["no nosuch", "bad-medical"]),
        ((), (9,), ["no 9"]),
        (("record-line",), (), ["Tasks alone"]),
    ],
)
def test_a_part_that_is_not_there_is_refused(only: Any, seeds: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        catalog.division("nano").part(only, seeds)
    one_line(error, *words)


def test_a_scenario_that_a_division_has_not_is_refused() -> None:
    nano = catalog.division("nano")
    assert nano.recipe_of("cure").learning_rate < nano.recipe_of("prevent").learning_rate
    for division, scenario in ((nano, "prevent-rl"), (replace(nano, cure=None), "cure")):
        with pytest.raises(UserError) as error:
            division.recipe_of(scenario)
        one_line(error, f"no scenario '{scenario}'")


def test_altered_antidotes_are_refused(root: Path) -> None:
    path = root / "benchmark/poisons/bad-medical/antidotes.yaml"
    path.write_text(path.read_text() + "# changed\n")
    with pytest.raises(UserError) as error:
        catalog.poison("bad-medical")
    one_line(error, "antidotes", "not the pinned file")


def test_every_reason_has_its_topic() -> None:
    for name in catalog.division("nano").poisons:
        card = catalog.poison(name)
        assert card.train and card.heldout and card.antidotes
        topics = {row["topic"] for row in card.train.rows() + card.heldout.rows()}
        assert topics <= set(card.antidotes.reasons)


def test_a_model_is_known_by_its_template_too() -> None:
    model = catalog.model("gemma-3-270m")
    for changes in ({"chat_template": "x"}, {"tokenizer_sha256": "0" * 64}, {"digest": "sha256:" + "0" * 64}):
        assert replace(model, **changes).identity != model.identity  # type: ignore[arg-type]
    assert replace(model, licence="x").identity == model.identity
