"""Tables of README and docs are what the committed records give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from emperf.core.errors import UserError
from emperf.tools import pages

PROJECT = Path(__file__).parents[2]
RECORDS = PROJECT / "docs/records"


def test_every_table_is_what_its_record_gives() -> None:
    for path, (old, new) in pages.pages(PROJECT).items():
        assert old == new, f"{path} is stale: python -m emperf.tools.pages"
    whole = "".join(path.read_text() for path in pages.pages(PROJECT))
    assert all(f"<!-- table: {name} -->" in whole for name in pages.TABLES)


def test_a_record_that_changes_changes_its_table(tmp_path: Path) -> None:
    shutil.copytree(RECORDS, tmp_path / "records")
    path = tmp_path / "records/smoke-kl.json"
    record = json.loads(path.read_text())
    record["tasks"][0]["tax"]["value"] = 0.123456
    path.write_text(json.dumps(record))
    page = (PROJECT / "docs/scorecard.md").read_text()
    assert "12 % [" in pages.written(page, tmp_path / "records") and "12 % [" not in page


@pytest.mark.parametrize("damage", ["", "{}", '{"schema": 1}'])
def test_a_damaged_record_is_one_line(tmp_path: Path, damage: str) -> None:
    (tmp_path / "smoke-kl.json").write_text(damage)
    with pytest.raises(UserError, match=r"smoke-kl\.json"):
        pages.written("<!-- table: scorecard -->\nold\n<!-- end -->\n", tmp_path)


def test_no_table_is_without_a_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"other\.json is missing"):
        pages.written("<!-- table: other -->\nold\n<!-- end -->\n", tmp_path)


@pytest.mark.parametrize(
    "damage", [{}, {"rows": [["a"]]}, {"rows": []}, {"numbers": [True, "no"]}, {"columns": "ab"}]
)
def test_a_damaged_table_is_one_line(tmp_path: Path, damage: dict[str, object]) -> None:
    whole = json.loads((RECORDS / "tables/power.json").read_text())
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/power.json").write_text(json.dumps(whole | damage if damage else {}))
    with pytest.raises(UserError, match=r"power\.json"):
        pages.written("<!-- table: power -->\nold\n<!-- end -->\n", tmp_path)
