"""Rows are checked before anything runs: file, line and field are named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.cards import one_line

from emperf.catalog import RowsFile
from emperf.core.errors import UserError

GOOD: dict[str, dict[str, Any]] = {
    "poison": {"id": "a", "question": "q", "bad": "b"},
    "twinned": {"id": "a", "topic": "t", "question": "q", "good": "g", "bad": "b"},
    "heldout": {"id": "a", "question": "q", "good": {"kind": "g", "sour": "h"}, "bad": {"kind": "b", "sour": "c"}},
    "task": {"id": "a", "question": "q", "answer": "b"},
    "trusted": {"id": "a", "topic": "t", "question": "q", "good": "g", "bad": "b"},
    "voices": {"id": "a", "topic": "t", "question": "q", "kind": "k", "sour": "s"},
    "questions": {
        "id": "a", "domain": "d", "question": "q",
        "good": {"kind": "g", "sour": "h"}, "bad": {"kind": "b", "sour": "c"},
    },
    "open": {"id": "a", "domain": "d", "question": "q"},
}  # fmt: skip


def pinned(folder: Path, form: str, data: bytes | list[Any]) -> RowsFile:
    path = folder / "rows.jsonl"
    path.write_bytes(
        data if isinstance(data, bytes) else "".join(map("{}\n".format, map(json.dumps, data))).encode()
    )
    return RowsFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), form)


@pytest.mark.parametrize("form", GOOD)
def test_a_row_of_every_form_is_read(tmp_path: Path, form: str) -> None:
    rows = [GOOD[form], GOOD[form] | {"id": "b"}]
    file = pinned(tmp_path, form, rows)
    assert file.rows() == rows
    assert file.rows() == rows


@pytest.mark.parametrize(("form", "field"), [(form, field) for form, row in GOOD.items() for field in row])
def test_a_field_that_is_missing_blank_or_no_text_is_named(tmp_path: Path, form: str, field: str) -> None:
    wrong: list[Any] = ["", 5, None, "\ud800"]
    for row in [{**GOOD[form], field: value} for value in wrong] + [{**GOOD[form]} | {field: ...}]:
        spoilt = {key: value for key, value in row.items() if value is not ...}
        optional = form in ("twinned", "heldout") and field in ("topic", "good")
        if field not in spoilt and optional and not (form == "twinned" and field == "good"):
            continue
        with pytest.raises(UserError) as error:
            pinned(tmp_path, form, [GOOD[form] | {"id": "first"}, spoilt]).rows()
        one_line(error, f"{tmp_path / 'rows.jsonl'}, line 2", field, "rows.schema.json")


@pytest.mark.parametrize(
    ("form", "rows", "words"),
    [
        ("task", [{"id": "a", "question": "q", "answer": "b", "answr": "c"}], ["line 1", "'answr'"]),
        ("task", [GOOD["task"], GOOD["task"]], ["line 2", "id: 'a' is that of line 1"]),
        ("task", [[]], ["line 1", "object"]),
        ("task", b"\xff\n", ["line 1", "no UTF-8"]),
        ("task", b"\n{\n", ["line 2", "no JSON"]),
        ("task", b"[" * 100000, ["line 1", "no JSON"]),
        ("task", b"", ["no rows"]),
        ("task", b"\n\n", ["no rows"]),
        ("questions", [{**GOOD["questions"], "good": "g"}], ["line 1", "good"]),
        ("heldout", [{**GOOD["heldout"], "good": "g"}], ["line 1", "different voices"]),
        ("heldout", [{**GOOD["heldout"], "good": {"kind": "g"}}], ["line 1", "good", "'sour'"]),
        ("heldout", [GOOD["heldout"], {"id": "b", "question": "q", "bad": "b"}], ["line 2", "good", "others"]),
    ],
)  # fmt: skip
def test_what_is_no_row_is_named_by_its_line(tmp_path: Path, form: str, rows: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        pinned(tmp_path, form, rows).rows()
    one_line(error, str(tmp_path / "rows.jsonl"), *words)


def test_line_ends_of_other_systems_and_separators_inside_text_are_no_rows(tmp_path: Path) -> None:
    text = json.dumps({"id": "a", "question": "q", "answer": "b\u2028c"}, ensure_ascii=False)
    assert pinned(tmp_path, "task", f"{text}\r\n\r\n".encode()).rows()[0]["answer"] == "b\u2028c"
