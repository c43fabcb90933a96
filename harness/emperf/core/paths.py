"""Where things are: the pinned benchmark, prepared models, runs."""

from __future__ import annotations

import os
from pathlib import Path

from emperf.core.errors import UserError

PROJECT = Path(__file__).resolve().parents[3]


def project_folder(name: str) -> Path:
    """`benchmark`, `spec` or `reference_impls`: below EMPERF_ROOT, the current folder, or the source checkout."""
    places = [Path(os.environ["EMPERF_ROOT"])] if "EMPERF_ROOT" in os.environ else [Path.cwd(), PROJECT]
    for place in places:
        if (place / "benchmark" / "divisions").is_dir():
            return place / name
    looked = ", ".join(str(place) for place in places)
    raise UserError(
        f"No benchmark/ folder in {looked}",
        "Run emperf in a clone of the project, or set EMPERF_ROOT to one.",
    )


def home() -> Path:
    """Prepared models: EMPERF_HOME, else the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("EMPERF_HOME") or Path(cache) / "emperf")
