"""Where things are: the pinned benchmark, the user's own cards, prepared models."""

from __future__ import annotations

import os
from pathlib import Path

from emperf.core.errors import UserError

PROJECT = Path(__file__).resolve().parents[3]
CARDS = "EMPERF_BENCHMARK"


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


def benchmark_folders() -> list[Path]:
    """The folders with cards: the project's first, then those that EMPERF_BENCHMARK names.

    Raises UserError where it names one that is no folder.
    """
    project = project_folder("benchmark")
    named = {Path(text).resolve(): Path(text) for text in os.environ.get(CARDS, "").split(os.pathsep) if text}
    named.pop(project.resolve(), None)
    wrong = next((path for path in named.values() if not path.is_dir()), None)
    if wrong is not None:
        raise UserError(
            f"{wrong} is no folder, and {CARDS} or --benchmark names it",
            "Name a folder with cards; `emperf add` makes one.",
        )
    return [project, *named.values()]


def add_benchmark(folder: Path) -> None:
    """From here on this process and its children read the cards in `folder` too."""
    known = os.environ.get(CARDS, "")
    absolute = str(folder.absolute())
    if absolute not in known.split(os.pathsep):
        os.environ[CARDS] = os.pathsep.join(filter(None, [known, absolute]))


def read_file(path: Path, fix: str) -> bytes:
    """A plain file's bytes. Raises UserError with `fix` where it cannot be read, or is a folder or a device."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} cannot be read (it is no plain file)", fix)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", fix) from None


def home() -> Path:
    """Prepared models: EMPERF_HOME, else the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("EMPERF_HOME") or Path(cache) / "emperf")
