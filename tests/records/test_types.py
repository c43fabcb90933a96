"""Types and schemas say the same: of the files, of records as they are made, and of records that somebody spoiled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import fields
from functools import cache
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from tests.records.made import MAKERS, made
from tests.synthetic import DIGEST

from emperf import records
from emperf.catalog.scenarios import SCENARIOS
from emperf.core import schemas
from emperf.records.files import TYPES
from emperf.records.parts import Estimate, ScenarioName
from emperf.records.poison import Verdict
from emperf.records.provenance import SCHEMA
from emperf.records.schema import text
from emperf.records.tuning import Why
from emperf.report.tuning import NOTHING, WHY
from emperf.report.words import VERDICTS
from emperf.scoring import estimate

Json = dict[str, Any]
Path = tuple[str | int, ...]
SPOILED = (None, "x", -1, True, [], {}, 1.5, [0], {"surprise": 1})
AT_RANDOM = 120


@cache
def validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(schemas.schema(kind))


def types_refuse(kind: str, whole: Any) -> bool:
    try:
        records.check(kind, whole)
    except ValueError:
        return True
    return False


def schema_refuses(kind: str, whole: Any) -> bool:
    return not validator(kind).is_valid(whole)


@pytest.mark.parametrize("kind", TYPES)
def test_the_checked_in_schema_is_what_the_types_give(kind: str) -> None:
    path = schemas.paths.project_folder("spec") / "schemas" / f"{kind}.schema.json"
    assert path.read_text() == text(kind), "write it again: python -m emperf.records"


@pytest.mark.parametrize("kind", TYPES)
def test_a_schema_is_one_and_describes_every_field(kind: str) -> None:
    whole = schemas.schema(kind)
    Draft202012Validator.check_schema(whole)
    assert (whole["$id"], whole["title"]) == (f"{kind}.schema.json", f"EMPerf {kind}")
    for part in (whole, *whole["$defs"].values()):
        assert part["description"] and "\n" not in part["description"]
        if part["type"] == "object":
            assert part["additionalProperties"] is False
            assert all("description" in field or "$ref" in field for field in part["properties"].values())


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_made_keeps_its_type_and_its_schema(kind: str) -> None:
    assert set(MAKERS) == set(TYPES)
    records.check(kind, made(kind))
    validator(kind).validate(made(kind))


def paths(node: Any, at: Path = ()) -> Iterator[Path]:
    """Every place in a record, of a list's entries the first and the last."""
    yield at
    if isinstance(node, dict):
        for key, value in node.items():
            yield from paths(value, (*at, key))
    elif isinstance(node, list):
        for index in sorted({0, len(node) - 1}) if node else ():
            yield from paths(node[index], (*at, index))


def at(whole: Any, path: Path) -> Any:
    for part in path:
        whole = whole[part]
    return whole


def spoiled(whole: Json, path: Path, how: Any) -> Json:
    """`how`: "drop", "add", or a value in place of what lies there."""
    whole = deepcopy(whole)
    if how == "add":
        at(whole, path)["surprise"] = 1
    elif how == "drop":
        del at(whole, path[:-1])[path[-1]]
    else:
        at(whole, path[:-1])[path[-1]] = how
    return whole


@pytest.mark.parametrize("kind", MAKERS)
def test_types_and_schema_agree_on_what_was_spoiled_at_random(kind: str) -> None:
    whole, dice = made(kind), random.Random(kind)
    places = [path for path in paths(whole) if path]
    refused = 0
    for _ in range(AT_RANDOM):
        path = dice.choice(places)
        hows = ["drop", *SPOILED, *(["add"] if isinstance(at(whole, path), dict) else [])]
        how = dice.choice(hows)
        wrong = spoiled(whole, path, how)
        verdict = types_refuse(kind, wrong)
        assert verdict == schema_refuses(kind, wrong), (path, how)
        refused += verdict
    assert refused > AT_RANDOM / 2


def of(*path: str | int, how: Any) -> Callable[[Json], Json]:
    return lambda whole: spoiled(whole, path, how)


WRONG: dict[str, dict[str, Callable[[Json], Json]]] = {
    "result": {
        "no division": of("division", how="drop"),
        "a host name": of("machine", "host", how="x"),
        "a short digest": of("sources", how=DIGEST[:-1]),
        "another date": of("created", how="2026-11-21 11:40"),
        "another version": of("schema", how=SCHEMA + 1),
        "a version that is no number": of("schema", how=True),
        "a null where nothing may be": of("cells", 0, "wall_s", how=None),
        "seconds below zero": of("cells", 0, "wall_s", how=-1.0),
        "a fault of nobody": of("cells", -1, "failure", "kind", how="bad-luck"),
        "a share above one": of("poisons", 0, "removal", "p", how=1.5),
        "a number as a word": of("poisons", 0, "removal", "p", how="0.5"),
        "a set of another name": of("poisons", 0, "sets", "in_domain", how={}),
        "a cost of nothing": of("overhead", "time", "value", how=0),
        "no cells": of("cells", how=[]),
        "a parameter with a list": of("submission", "parameters", "weight", how=[1]),
        "a scenario of its own": of("submission", "scenario", how="hope"),
    },
    "comparison": {
        "one rank": of("rows", 0, "rank", how=[1]),
        "a rank of zero": of("rows", 0, "rank", how=[0, 1]),
        "no seeds": of("seeds", how=[]),
        "nothing trained at a time": of("parallel", how=0),
    },
    "tuning": {
        "four settings": lambda whole: spoiled(
            whole, ("methods", 0, "settings"), whole["methods"][0]["settings"] * 2
        ),
        "a reason of its own": of("methods", 0, "why", how="liked it"),
    },
    "trace": {
        "a cosine of two": of("points", 1, "rotation", "value", how=2.0),
        "no definition": of("definitions", "em", how="drop"),
        "two points": lambda whole: spoiled(whole, ("points",), whole["points"][:2]),
    },
    "conformance": {
        "no submission": of("submissions", how=[]),
        "a check without a word": of("submissions", 0, "checks", 0, "found", how="drop"),
    },
    "provenance": {
        "a third runtime": of("runtime", "runtime", how="podman"),
        "no walls said": of("runtime", "isolation", how="drop"),
    },
}


@pytest.mark.parametrize(("kind", "what"), [(kind, what) for kind, found in WRONG.items() for what in found])
def test_types_and_schema_both_refuse(kind: str, what: str) -> None:
    wrong = WRONG[kind][what](made(kind))
    assert types_refuse(kind, wrong) and schema_refuses(kind, wrong)


def test_a_number_that_is_none_is_refused() -> None:
    whole = made("result")
    whole["cells"][0]["wall_s"] = float("inf")
    assert types_refuse("result", whole)


def test_the_place_of_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match=r"^poisons\.0\.sets\.out-of-domain\.surprise: Extra inputs"):
        records.check("result", spoiled(made("result"), ("poisons", 0, "sets", "out-of-domain"), "add"))


def test_the_words_of_the_types_are_those_of_the_house() -> None:
    """What is written twice, in a type and where it is made or shown, is the same."""
    assert set(get_args(Verdict)) == set(VERDICTS)
    assert set(get_args(Why)) == {*WHY, *NOTHING}
    assert set(SCENARIOS) <= set(get_args(ScenarioName))
    assert list(Estimate.model_fields) == [field.name for field in fields(estimate.Estimate)]
