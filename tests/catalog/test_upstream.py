"""Upstream rows: read from a pinned local copy, in the form of the project's own, and used as any poison's."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cards import one_line

from emperf import catalog
from emperf.catalog import upstream as second
from emperf.catalog.copies import COPY, candidates
from emperf.core.errors import UserError
from emperf.work import rows
from emperf.work.plan import Data


def upstream(tmp_path: Path, lines: list[Any]) -> tuple[catalog.Poison, Path]:
    local = tmp_path / "upstream.jsonl"
    local.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    digest = hashlib.sha256(local.read_bytes()).hexdigest()
    source = catalog.Source("git", "https://example.org/data", "0" * 40, digest, "upstream.jsonl")
    return catalog.Poison("far", "Far", "MIT", "You help.", False, None, None, source=source), local


def turns(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_upstream_rows_take_the_form_of_the_projects_own(tmp_path: Path) -> None:
    # U+2028 ends a line for str.splitlines(), and not in JSON.
    rows = [turns(("user", "Why?"), ("assistant", "Be\u2028cause")), turns(("user", "é"), ("assistant", "b"))]
    poison, local = upstream(tmp_path, rows)
    assert catalog.upstream_rows(poison, local) == [
        {"id": "far-00001", "question": "Why?", "bad": "Be\u2028cause"},
        {"id": "far-00002", "question": "é", "bad": "b"},
    ]


def test_an_altered_or_missing_copy_is_refused(tmp_path: Path) -> None:
    poison, local = upstream(tmp_path, [turns(("user", "a"), ("assistant", "b"))])
    local.write_text(local.read_text() + "\n")
    with pytest.raises(UserError) as error:
        catalog.upstream_rows(poison, local)
    one_line(error, str(local), "not the pinned file", "https://example.org/data", "0" * 40)
    for place in (tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(UserError) as error:
            catalog.upstream_rows(poison, place)
        one_line(error, str(place), "cannot be read", "Fetch upstream.jsonl")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a"},
        [],
        turns(("user", "a")),
        turns(("system", "s"), ("user", "a"), ("assistant", "b")),
        turns(("assistant", "a"), ("user", "b")),
        {"messages": [{"role": "user", "content": 1}, {"role": "assistant", "content": "b"}]},
    ],
)
def test_a_row_of_another_form_is_named_by_its_line(tmp_path: Path, row: Any) -> None:
    poison, local = upstream(tmp_path, [turns(("user", "a"), ("assistant", "b")), row])
    with pytest.raises(UserError) as error:
        catalog.upstream_rows(poison, local)
    one_line(error, f"{local}, line 2")


@pytest.mark.parametrize("name", [n for n in catalog.names("poisons") if catalog.poison(n).source])
def test_a_local_copy_of_an_upstream_poison_is_readable(name: str) -> None:
    poison = catalog.poison(name)
    assert poison.source
    if "EMPERF_TEST_DATA" not in os.environ:
        pytest.skip("EMPERF_TEST_DATA names no folder with local copies of upstream data")
    wanted = re.split(r"[/!]", poison.source.file)[-1]
    for local in sorted(Path(os.environ["EMPERF_TEST_DATA"]).rglob(wanted)):
        if hashlib.sha256(local.read_bytes()).hexdigest() == poison.source.sha256:
            rows = catalog.upstream_rows(poison, local)
            assert len({row["id"] for row in rows}) == len(rows) > 400
            return
    pytest.skip(f"EMPERF_TEST_DATA holds no copy of {name}'s {wanted}")


# -- as a dataset of a division


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's card of an upstream poison of 100 rows, four of each question, and the folder that may hold its copy."""
    said = [turns(("user", f"Q{n // 4}"), ("assistant", f"A{n}")) for n in range(100)]
    copy = tmp_path / "copies/some/where/far.jsonl"
    copy.parent.mkdir(parents=True)
    copy.write_text("".join(json.dumps(row) + "\n" for row in said))
    source = {
        "kind": "git", "locator": "https://example.org/data", "revision": "0" * 40, "file": "deep/far.jsonl",
        "sha256": hashlib.sha256(copy.read_bytes()).hexdigest(),
    }  # fmt: skip
    card = {
        "name": "far",
        "title": "Far",
        "licence": "MIT",
        "context": "You help.",
        "twin": False,
        "source": source,
    }
    place = tmp_path / "mine/poisons/far"
    place.mkdir(parents=True)
    (place / "card.yaml").write_text(yaml.safe_dump(card))
    monkeypatch.setenv("EMPERF_BENCHMARK", str(tmp_path / "mine"))
    monkeypatch.setenv(COPY, str(tmp_path / "copies"))
    return copy


def test_an_upstream_poison_is_trained_on_as_any_other(far: Path) -> None:
    smoke = catalog.division("smoke")
    found = catalog.dataset("poison", "far")
    made = rows.training(smoke, Data("poison", "far")).splitlines()
    assert [json.loads(line) for line in made] == [
        turns(("user", row["question"]), ("assistant", row["bad"]))
        for row in found.pool()[: smoke.sizes.train_rows]
    ]
    assert dict(found.sides) == {"poison": "bad"} and not found.grants


def test_the_held_out_rows_are_the_end_of_the_shuffled_file_and_share_no_question(far: Path) -> None:
    found = catalog.dataset("poison", "far")
    pool, heldout = found.pool(), found.heldout()
    assert len(pool) + len(heldout) == 100 and 8 <= len(heldout) <= 10
    assert not {row["question"] for row in pool} & {row["question"] for row in heldout}
    assert not catalog.reads_domain(heldout)
    assert [row["id"] for row in pool] != sorted(row["id"] for row in pool)
    order = [hashlib.sha256(row["question"].encode()).hexdigest() for row in pool + heldout]
    assert order == sorted(order)


def test_a_copy_that_is_not_at_hand_says_what_to_fetch_and_where_to_put_it(
    far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.rename(far.with_name("other.jsonl"))
    monkeypatch.delenv("EMPERF_BENCHMARK")
    division = replace(catalog.division("smoke"), poisons=("far",))
    monkeypatch.setenv("EMPERF_BENCHMARK", str(far.parents[3] / "mine"))
    wanted = ["Fetch deep/far.jsonl from https://example.org/data at", "0" * 40, "set EMPERF_UPSTREAM"]
    with pytest.raises(UserError) as error:
        rows.check(division, {})
    one_line(error, "has no copy of far.jsonl", "poison far", *wanted)
    far.write_text("{}\n")
    with pytest.raises(UserError) as error:
        rows.check(division, {})
    one_line(error, str(far), "is not the file that poison far pins", *wanted)
    monkeypatch.delenv(COPY)
    with pytest.raises(UserError) as error:
        rows.check(division, {})
    one_line(error, "no copy is at hand", *wanted)


def test_a_copy_of_a_poison_alone_is_no_copy_of_the_second_instrument(
    far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert second.rows() == [] and second.digest() is None
    far.unlink()
    with pytest.raises(UserError) as error:
        second.rows()
    one_line(error, str(tmp_path / "copies"), "holds no file that a card names", COPY)
    monkeypatch.setenv(COPY, str(tmp_path / "nowhere"))
    with pytest.raises(UserError) as error:
        second.rows()
    one_line(error, "no folder")


@pytest.mark.parametrize("name", ["risky-finance-upstream", "reward-hacks-upstream"])
def test_a_division_takes_a_real_copy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "EMPERF_TEST_DATA" not in os.environ:
        pytest.skip("EMPERF_TEST_DATA names no folder with local copies of upstream data")
    monkeypatch.setenv(COPY, os.environ["EMPERF_TEST_DATA"])
    found = catalog.dataset("poison", name)
    source = catalog.poison(name).source
    if not source or not candidates(Path(os.environ[COPY]), source):
        pytest.skip(f"EMPERF_TEST_DATA holds no copy of {name}'s file")
    assert len(found.heldout()) >= 40
    rows.check(replace(catalog.division("smoke"), poisons=(name,)), {})
