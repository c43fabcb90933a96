"""Tables of measurements that are no record of a run: JSON in docs/records/tables, shown by the pages.

command   what measured it
measured  when, and at which commit where that is known
columns   the heads; `numbers`: whether each column is of numbers
rows      cells, as text
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emperf.core import schemas
from emperf.core.errors import UserError
from emperf.core.files import read_json, write_json

FOLDER = "tables"


@dataclass(frozen=True)
class Measured:
    """One table. `numbers`: whether each column is of numbers, which stand to the right."""

    command: str
    measured: str
    columns: Sequence[str]
    numbers: Sequence[bool]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table's lines, each with a line feed."""
        rules = ["---:" if number else "---" for number in self.numbers]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in (self.columns, rules, *self.rows))

    def keep(self, folder: Path, name: str) -> Path:
        """Written as NAME.json below `folder`; its path."""
        path = folder / f"{name}.json"
        write_json(path, asdict(self))
        return path


def read(path: Path) -> Measured:
    """Raises UserError for a file that is missing or holds no such table."""
    raw: dict[str, Any] | None = read_json(path)
    fix = "Restore it from the repository, or measure it again."
    if raw is None:
        raise UserError(f"{path} is missing", fix)
    try:
        schemas.check("measured", raw)
        found = Measured(**raw)
        wide = {len(found.columns), len(found.numbers), *map(len, found.rows)}
        if len(wide) != 1:
            raise ValueError("rows: not as many cells as columns")
    except ValueError as error:
        raise UserError(f"{path}: {error}", fix) from None
    return found
