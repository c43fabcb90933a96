"""Pinned JSON-lines files: the digest is checked first, then every row against spec/schemas/rows.schema.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emperf.core import digests, paths, schemas
from emperf.core.errors import UserError

Row = dict[str, Any]
PROJECT, USER = "project", "user"
HELDOUT = "heldout"
# (digest, form) of the files whose rows are known to keep their schema: they are read again for every cell.
_checked: set[tuple[str, str]] = set()
_FIX = {
    PROJECT: "Restore it from the repository; results with other data do not compare.",
    USER: "Restore it, or take the folder away and add it again (emperf add).",
}


@dataclass(frozen=True)
class RowsFile:
    """A pinned file. `form`: what its rows are, a part of spec/schemas/rows.schema.json. `origin`: PROJECT or USER."""

    path: Path
    sha256: str
    form: str
    origin: str = PROJECT

    def rows(self) -> list[Row]:
        """Raises UserError if the file is missing or is not the pinned one, or for a row that breaks its schema."""
        return pinned_rows(self.path, self.sha256, self.form, _FIX[self.origin])


def pinned_rows(path: Path, sha256: str, form: str, fix: str) -> list[Row]:
    """A file's rows, as `read_rows`. Raises UserError with `fix` where it cannot be read or is another one."""
    data = paths.read_file(path, fix)
    if digests.of_bytes(data) != f"sha256:{sha256}":
        raise UserError(f"{path} is not the pinned file (its sha256 differs from the card's)", fix)
    if (sha256, form) in _checked:
        return [row for _, row in json_lines(path, data)]
    rows = read_rows(path, data, form)
    _checked.add((sha256, form))
    return rows


def read_rows(path: Path, data: bytes, form: str) -> list[Row]:
    """The rows in `data`, the bytes of `path`. Raises UserError that names file, line and field."""
    fix = f"See {form!r} in spec/schemas/rows.schema.json for what a row holds."
    rows: list[Row] = []
    taken: dict[str, int] = {}
    for number, row in json_lines(path, data):
        try:
            schemas.check_written(f"rows#{form}", row)
            if form == HELDOUT:
                _check_voices(row)
            if "id" in row and taken.setdefault(row["id"], number) != number:
                raise ValueError(f"id: {row['id']!r} is that of line {taken[row['id']]} too")
            if rows and form == HELDOUT and ("good" in row) != ("good" in rows[0]):
                raise ValueError("good: some rows have it and others have not")
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}", fix) from None
        rows.append(row)
    return rows


def json_lines(path: Path, data: bytes) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each line of JSON that is not blank. Raises UserError for a line that is none, and where
    there is no line at all."""
    empty = True
    # Not splitlines(), which also breaks at the line separators that JSON allows inside a string.
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = "it is no UTF-8" if isinstance(error, UnicodeDecodeError) else "it is no JSON"
            raise UserError(
                f"{path}, line {number} cannot be read ({why})", "Write one JSON object a line, in UTF-8."
            ) from None
        empty = False
        yield number, value
    if empty:
        raise UserError(f"{path} has no rows", "Write one JSON object a line.")


def _check_voices(row: Row) -> None:
    """Raises ValueError where the good and the bad answers of a held-out row are not in the same voices."""
    if "good" in row and isinstance(row["good"], dict) != isinstance(row["bad"], dict):
        raise ValueError("good: the good and the bad answers have different voices")
