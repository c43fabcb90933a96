"""`python -m emperf.tools.pages`: writes the tables of README and docs from committed records (docs/records).

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. Nobody pastes one: those named in TABLES are made of a
record there, the others of docs/records/tables/NAME.json (`emperf.tools.measured`). With --check nothing is written,
and the exit code is 1 where a page is not what its records give.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from emperf import catalog
from emperf.core import paths
from emperf.core.errors import UserError
from emperf.core.files import read_json
from emperf.report import scorecard
from emperf.report.comparison import markdown
from emperf.report.console import WIDTH_OF_A_PIPE
from emperf.report.judges import print_judges
from emperf.tools import measured

Json = dict[str, Any]
MARK = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def whole_scorecard(record: Json) -> str:
    """Without the sampled answers, which fill a page."""

    def show(console: Console) -> None:
        scorecard.print_scorecard(record | {"answers": []}, console, Path("runs/runs") / record["run_id"])

    return printed(show)


def short_scorecard(record: Json) -> str:
    return printed(lambda console: scorecard.print_short(record, console))


def judges(record: Json) -> str:
    return printed(lambda console: print_judges(record["judges"], console), WIDTH_OF_A_PIPE)


def printed(show: Callable[[Console], None], width: int = scorecard.WIDTH) -> str:
    """What is printed, as a block of code."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show(console)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().strip("\n").splitlines()]
    return "\n".join(["```", *lines, "```", ""])


# Table -> (kind of record, its file below docs/records, how it is written).
TABLES: dict[str, tuple[str, str, Callable[[Json], str]]] = {
    "scorecard": ("result", "smoke-kl.json", whole_scorecard),
    "scorecard-short": ("result", "smoke-kl.json", short_scorecard),
    "judges": ("judges", "judges.json", judges),
    "comparison": ("comparison", "comparison-bad-medical.json", markdown),
}


def written(text: str, folder: Path) -> str:
    """A page with its tables as the records in `folder` give them. Raises UserError for a record that breaks its
    schema, or that is missing."""

    def table(found: re.Match[str]) -> str:
        if found["name"] not in TABLES:
            kept = measured.read(folder / measured.FOLDER / f"{found['name']}.json")
            return f"{found[1]}{kept.markdown()}{found[4]}"
        kind, file, write = TABLES[found["name"]]
        record = read_json(folder / file)
        if record is None:
            raise UserError(f"{folder / file} is missing", "Copy the record of a run there.")
        try:
            catalog.check(kind, record)
        except ValueError as error:
            raise UserError(
                f"{folder / file}: {error}", "Copy the record of a run of this version."
            ) from None
        return f"{found[1]}{write(record)}{found[4]}"

    return MARK.sub(table, text)


def pages(root: Path) -> dict[Path, tuple[str, str]]:
    """Page -> (as it stands, as its records give it)."""
    found = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return {
        path: (text := path.read_text(encoding="utf-8"), written(text, root / "docs/records"))
        for path in found
    }


def main(arguments: list[str]) -> int:
    root, check = paths.project_folder("docs").parent, "--check" in arguments
    try:
        stale = {path: new for path, (old, new) in pages(root).items() if new != old}
    except UserError as error:
        print(f"emperf: {error}", file=sys.stderr)
        return 2
    for path, new in stale.items():
        print(f"{path.relative_to(root)}: {'is not what its records give' if check else 'written'}")
        if not check:
            path.write_text(new, encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
