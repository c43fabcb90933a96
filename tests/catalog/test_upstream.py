"""Upstream rows: read from a pinned local copy, in the form of the project's own."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from tests.cards import one_line

from emperf import catalog
from emperf.core.errors import UserError


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
