"""`emperf check` on the terminal: a line a check, as soon as it is known."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from emperf import catalog
from emperf.catalog import Submission
from emperf.experiments import session
from emperf.runtimes import Runtime
from emperf.tools.conformance.checks import Check, check
from emperf.tools.conformance.ground import Ground, make_ground

ALL = "all"


def check_all(names: Sequence[Path], given: dict[str, Any], wanted: str, console: Console) -> bool:
    """Check one after the other and print; whether all pass. "all" stands for the whole catalogue."""
    folders = [
        folder
        for name in names
        for folder in (map(Path, catalog.names("mitigations")) if is_all(name) else [name])
    ]
    with tempfile.TemporaryDirectory(prefix="emperf-check-") as scratch:

        @cache
        def ground() -> Ground:
            # Libraries tell of progress and of missing accelerators.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                return make_ground(Path(scratch))

        said: list[str] = []

        def choose(submissions: list[Submission]) -> tuple[Runtime, dict[str, str]]:
            chosen = session.choose_runtime(wanted, Path(scratch), submissions)
            if chosen.why not in said:
                said.append(chosen.why)
                console.print(Text(f"Runtime: {chosen.runtime.name}. {chosen.why}"), soft_wrap=True)
            return chosen.runtime, chosen.images

        failed = [
            folder for folder in folders if not one(check(folder, given, ground, choose), folder, console)
        ]
    if len(folders) > 1:
        names_failed = f": {', '.join(folder.name for folder in failed)}" if failed else ""
        console.print(
            f"{len(folders)} checked, {len(failed)} failed{names_failed}.", highlight=False, markup=False
        )
    return not failed


def is_all(name: Path) -> bool:
    return str(name) == ALL and not (name / "submission.yaml").is_file()


def one(checks: Iterable[Check], folder: Path, console: Console) -> bool:
    """Print the checks of one submission and how long they took; whether all pass."""
    console.print(Text(str(folder), "bold"))
    began, passed = time.monotonic(), True
    for found in checks:
        passed &= found.ok
        mark = Text("ok      ", "green") if found.ok else Text("FAILED  ", "bold red")
        console.print(Text.assemble("  ", mark, f"{found.name:<12}", Text(found.found)), soft_wrap=True)
    verdict = "passes" if passed else "FAILS"
    console.print(
        f"  {folder.name} {verdict}, {time.monotonic() - began:.0f} s", highlight=False, markup=False
    )
    return passed
