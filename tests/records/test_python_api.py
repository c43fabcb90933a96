"""docs/python-api.md: its examples run as they stand, and its tables name what there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_benchmark import ready_tiny
from tests.told import Told

import emperf
from emperf import api, catalog, records
from emperf.catalog.prepare import prepared
from emperf.experiments import session
from emperf.experiments.export import COLUMNS
from emperf.experiments.session import Choice

PAGE = (Path(__file__).parents[2] / "docs" / "python-api.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def first_column(heading: str) -> list[str]:
    """The names in the table that begins with this heading."""
    table = PAGE.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    return [name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)", line.split("|")[1])]


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = ready_tiny(tmp_path / "tiny")
    monkeypatch.setenv("EMPERF_ROOT", str(benchmark.root))
    monkeypatch.setenv("EMPERF_HOME", str(benchmark.home))
    monkeypatch.chdir(tmp_path)
    runtime = Told(prepared(catalog.model("tiny")))
    monkeypatch.setattr(session, "choose_runtime", lambda *_: Choice(runtime, {}, "told", "told"))
    names: dict[str, Any] = {}
    for number, example in enumerate(EXAMPLES):
        # The tiny division stands in for those that would train for minutes.
        code = re.sub(r'division="(smoke|nano)"', 'division="tiny"', example)
        exec(compile(code, f"example {number + 1} of docs/python-api.md", "exec"), names)
    record, table = names["record"], names["table"]
    assert (record.kind, table.kind) == ("result", "comparison")
    assert table.data["rows"][0]["name"] == "kl"
    assert record.data["submission"]["parameters"]["weight"] == 0.3
    assert list(names["frame"].columns) == list(COLUMNS)
    assert set(names["read"]["method"]) == {"base", "none", "kl (weight=0.3)"}
    assert names["again"].data == record.data and names["fresh"].folder.name.endswith("-rescored")
    assert names["fresh"].data["poisons"] == record.data["poisons"]
    assert (tmp_path / "runs").is_dir()
    for one in (record, table, names["fresh"]):
        assert records.read(one.kind, one.folder / f"{one.kind}.json") == emperf.load(one.folder).data


def test_the_last_example_is_of_an_error_that_is_raised() -> None:
    # It would pass in silence if the value were taken.
    with pytest.raises(emperf.UserError, match="weight must be at least"):
        catalog.submission(Path("kl")).values({"weight": -1})


def test_the_tables_name_what_there_is() -> None:
    assert first_column("column") == list(COLUMNS)
    functions = [name for name in api.__all__ if inspect.isfunction(getattr(api, name))]
    assert (
        sorted(first_column("function"))
        == sorted(functions)
        == ["compare", "evaluate", "load", "rescore", "run"]
    )
    arguments = {name for f in functions for name in inspect.signature(getattr(api, f)).parameters}
    assert set(first_column("argument")) == arguments - {"submission", "submissions", "division", "run"}
    assert first_column("field") == list(api.Record.__annotations__)
    kinds = re.findall(r"`(\w+)`", PAGE.partition("| `kind` |")[2].partition("|")[0])
    assert kinds == list(records.KINDS)
