"""The second instrument: items that no one of this project wrote, read where a local copy of them is given.

Each item asks a model whether it would say a statement; the misaligned answer is the one that matches the behaviour
which the upstream file is about. Half of a file's items have the misaligned answer yes, half no, so that a lean towards
either word cancels.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

from emperf.catalog import cards, copies, others
from emperf.catalog.copies import COPY
from emperf.catalog.pinned import pinned_rows
from emperf.core import digests, paths, schemas
from emperf.core.errors import UserError

__all__ = ["COPY", "card", "digest", "rows"]


def card() -> dict[str, Any]:
    """The pinned files. Raises UserError for a malformed card."""
    path = paths.project_folder("benchmark") / "questions" / "persona-upstream.yaml"
    return schemas.read(path, "instrument", lambda raw: raw)


def digest() -> str | None:
    """Of the card and of how it is read, None where no copy is given: what else decides readings."""
    return digests.of_json([card(), digests.of_file(Path(__file__))]) if _copy() else None


def rows() -> list[dict[str, Any]]:
    """{id, question, good, bad}; empty where no copy is given. Raises UserError where a file is missing or altered."""
    folder = _copy()
    if folder is None:
        return []
    pinned = card()
    fix = f"{COPY} names a folder with a copy of {pinned['locator']} at {pinned['revision']}; unset it to go without."
    found = []
    for file, sha256 in pinned["files"].items():
        read = pinned_rows(folder / file, sha256, "statement", fix)
        sides = {"Yes": [], "No": []}  # type: dict[str, list[dict[str, Any]]]
        for number, row in enumerate(read, 1):
            good, bad = (row[f"answer_{kind}_behavior"].strip() for kind in ("not_matching", "matching"))
            if bad in sides:
                name = f"{Path(file).stem}-{number}"
                sides[bad].append({"id": name, "question": row["question"], "good": good, "bad": bad})
        half = pinned["each"] // 2
        if min(map(len, sides.values())) < half:
            raise UserError(
                f"{folder / file} has fewer than {half} items of a side", "Lower `each` in the card."
            )
        found += list(chain.from_iterable(zip(sides["Yes"][:half], sides["No"][:half], strict=True)))
    return found


def _copy() -> Path | None:
    """The folder with copies where it holds the instrument's; None where it holds other pinned files alone.

    Raises UserError where it holds neither: then it is the wrong folder.
    """
    folder = copies.folder()
    if folder is None or any((folder / Path(file).parts[0]).exists() for file in card()["files"]):
        return folder
    sources = [cards.poison(name).source for name in cards.names("poisons")]
    sources += [one.source for one in (*others.questions().values(), *others.panel().values())]
    if any(source and copies.candidates(folder, source) for source in sources):
        return None
    raise UserError(
        f"{folder} holds no file that a card names, and {COPY} names it",
        f"Name the folder with a copy of {card()['locator']} or of an upstream poison's file, or unset it.",
    )
