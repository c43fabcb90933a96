"""Local copies of what others wrote: a card names the file and its digest, EMPERF_UPSTREAM the folder with the copy."""

from __future__ import annotations

import os
import re
from pathlib import Path

from emperf.catalog.cards import Source
from emperf.core import digests, paths
from emperf.core.errors import UserError

COPY = "EMPERF_UPSTREAM"


def folder() -> Path | None:
    """The folder with copies, None where none is named. Raises UserError where it is no folder."""
    if not os.environ.get(COPY):
        return None
    found = Path(os.environ[COPY])
    if not found.is_dir():
        raise UserError(
            f"{COPY} names {found}, which is no folder", "Name a folder with copies, or unset it."
        )
    return found


def find(source: Source, whose: str) -> Path:
    """The copy of `source`, the file that `whose` card pins, anywhere in the folder.

    Raises UserError that says what to fetch and where to put it.
    """
    fix = (
        f"Fetch {source.file} from {source.locator} at {source.revision} (sha256 {source.sha256}), put it into a "
        f"folder, and set {COPY} to that folder."
    )
    place = folder()
    if place is None:
        raise UserError(f"The rows of {whose} are not shipped, and no copy is at hand", fix)
    found = candidates(place, source)
    for path in found:
        if digests.of_bytes(paths.read_file(path, fix)) == f"sha256:{source.sha256}":
            return path
    if found:
        raise UserError(f"{found[0]} is not the file that {whose} pins (its sha256 differs)", fix)
    raise UserError(f"{place} has no copy of {_base(source)}, whose rows are those of {whose}", fix)


def candidates(place: Path, source: Source) -> list[Path]:
    """The files below `place` that have the source's name, the one at the source's own path first."""
    paths_of = [place / source.file, *sorted(place.rglob(_base(source)))]
    return [path for path in dict.fromkeys(paths_of) if path.is_file()]


def _base(source: Source) -> str:
    return re.split(r"[/!]", source.file)[-1]
