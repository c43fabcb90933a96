"""The second instrument: items that no one of this project wrote, read where a local copy of them is given.

Each item asks a model whether it would say a statement; the misaligned answer is the one that matches the behaviour
which the upstream file is about. Half of a file's items have the misaligned answer yes, half no, so that a lean towards
either word cancels.
"""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.core import digests, paths, schemas
from emperf.core.errors import UserError

COPY = "EMPERF_UPSTREAM"


def card() -> dict[str, Any]:
    """The pinned files. Raises UserError for a malformed card."""
    path = paths.project_folder("benchmark") / "questions" / "persona-upstream.yaml"
    return schemas.read(path, "instrument", lambda raw: raw)


def digest() -> str | None:
    """Of the card and of how it is read, None where no copy is given: what else decides readings."""
    return digests.of_json([card(), digests.of_file(Path(__file__))]) if COPY in os.environ else None


def rows() -> list[dict[str, Any]]:
    """{id, question, good, bad}; empty where no copy is given. Raises UserError where a file is missing or altered."""
    if COPY not in os.environ:
        return []
    pinned, folder = card(), Path(os.environ[COPY])
    fix = f"{COPY} names a folder with a copy of {pinned['locator']} at {pinned['revision']}; unset it to go without."
    found = []
    for file, sha256 in pinned["files"].items():
        read = catalog.pinned_rows(folder / file, sha256, fix)
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
