"""`emperf check` on the terminal: a line a check, as soon as it is known; and its record."""

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

from emperf import catalog, records
from emperf.catalog import Submission
from emperf.core import digests
from emperf.core.errors import UserError
from emperf.experiments import session
from emperf.records import provenance
from emperf.runtimes import Runtime
from emperf.tools.conformance.checks import Check, check
from emperf.tools.conformance.setting import Setting, make_setting

ALL = "all"
Json = dict[str, Any]


def check_all(
    names: Sequence[Path], given: Json, wanted: str, console: Console
) -> tuple[list[Json], Runtime | None]:
    """Check one after the other and print. "all" stands for the whole catalogue.

    Gives (a `CheckedSubmission` each, the runtime). The runtime is None where no submission came as far as a job.
    """
    folders = [
        folder
        for name in names
        for folder in (map(Path, catalog.names("mitigations")) if is_all(name) else [name])
    ]
    with tempfile.TemporaryDirectory(prefix="emperf-check-") as scratch:

        @cache
        def setting() -> Setting:
            # Libraries tell of progress and of missing accelerators.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                return make_setting(Path(scratch))

        said: list[str] = []
        used: list[Runtime] = []

        def choose(submissions: list[Submission]) -> tuple[Runtime, dict[str, str]]:
            chosen = session.choose_runtime(wanted, Path(scratch), submissions)
            if chosen.why not in said:
                said.append(chosen.why)
                console.print(Text(f"Runtime: {chosen.runtime.name}. {chosen.why}"), soft_wrap=True)
            used.append(chosen.runtime)
            return chosen.runtime, chosen.images

        checked = [one(check(folder, given, setting, choose), folder, console) for folder in folders]
    failed = [folder.name for folder, found in zip(folders, checked, strict=True) if not found["passed"]]
    if len(folders) > 1:
        names_failed = f": {', '.join(failed)}" if failed else ""
        console.print(
            f"{len(folders)} checked, {len(failed)} failed{names_failed}.", highlight=False, markup=False
        )
    return checked, used[-1] if used else None


def record(checked: list[Json], given: Json, wanted: str, runtime: Runtime | None) -> Json:
    """What `emperf check --json` prints (spec/schemas/conformance.schema.json).

    `checked`, `runtime`: as `check_all` gives them. Without a runtime it is the one that would have been taken. Raises
    UserError where that cannot be had.
    """
    facts = (runtime or session.choose_runtime(wanted, Path(tempfile.gettempdir()), []).runtime).describe()
    stands_on = [[[one["folder"], one["digest"]] for one in checked], given, facts["runtime"]]
    whole = provenance.now(f"check-{digests.short(digests.of_json(stands_on))[:8]}", facts)
    whole |= {
        "parameters": given,
        "passed": all(one["passed"] for one in checked),
        "submissions": checked,
    }
    records.check("conformance", whole)
    return whole


def is_all(name: Path) -> bool:
    return str(name) == ALL and not (name / "submission.yaml").is_file()


def one(checks: Iterable[Check], folder: Path, console: Console) -> Json:
    """Print the checks of one submission and how long they took; what a record has of it."""
    console.print(Text(str(folder), "bold"))
    began, done = time.monotonic(), list[Check]()
    for found in checks:
        done.append(found)
        mark = Text("ok      ", "green") if found.ok else Text("FAILED  ", "bold red")
        console.print(Text.assemble("  ", mark, f"{found.name:<12}", Text(found.found)), soft_wrap=True)
    wall_s, passed = time.monotonic() - began, all(found.ok for found in done)
    verdict = "passes" if passed else "FAILS"
    console.print(f"  {folder.name} {verdict}, {wall_s:.0f} s", highlight=False, markup=False)
    return {
        "folder": readable(str(folder)),
        "digest": digest_of(folder),
        "passed": passed,
        "wall_s": round(wall_s, 3),
        "checks": [{"name": found.name, "ok": found.ok, "found": readable(found.found)} for found in done],
    }


def digest_of(folder: Path) -> str | None:
    """The submission's digest. None where its card or its folder cannot be used."""
    try:
        return catalog.submission(folder).digest
    except UserError:
        return None


def readable(text: str) -> str:
    """The same without what UTF-8 cannot say: a path may hold any bytes."""
    return text.encode(errors="replace").decode()
