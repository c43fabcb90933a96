"""The Python API, the same functions that the command line calls.

import emperf

record = emperf.run("kl", division="smoke")
record.data["poisons"][0]["removal"]
emperf.load(record.folder).frame()
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emperf import catalog, records
from emperf.core.errors import UserError
from emperf.execute.engine import Watcher
from emperf.experiments import comparison
from emperf.experiments import evaluate as evaluating
from emperf.experiments import rescore as again
from emperf.experiments import run as running
from emperf.experiments.evaluate import Sampling
from emperf.experiments.export import frame

__all__ = ["Record", "UserError", "compare", "evaluate", "load", "rescore", "run"]
STORE = "runs"


class Silent:
    """A watcher that says nothing."""

    def begin(self, total: int, done: int, labels: Sequence[str] = ()) -> None: ...
    def cell(self, label: str) -> None: ...
    def note(self, text: str) -> None: ...
    def tick(self, elapsed_s: float) -> None: ...
    def end(self, label: str, record: dict[str, Any] | None) -> None: ...


@dataclass(frozen=True)
class Record:
    """What an experiment left. `kind`: result, comparison, tuning, trace or evaluation; `data`: its content, as
    spec/schemas/KIND.schema.json has it; `folder`: where it lies."""

    kind: str
    data: dict[str, Any]
    folder: Path

    def frame(self) -> Any:
        """Every reading as a pandas data frame, a row for each answer that was read (`emperf.experiments.export`)."""
        return frame(self.folder)


def run(
    submission: str | Path,
    division: str = "smoke",
    *,
    parameters: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    cross: bool = False,
    runtime: str = "auto",
    store: str | Path = STORE,
    watcher: Watcher | None = None,
) -> Record:
    """One submission (a folder, or a reference mitigation's name) against the baseline, as `emperf run`.

    What is stored is not made again. `only`, `seeds`: a part of the division. Raises UserError for what a user can get
    wrong, before anything is trained.
    """
    whole, folder = running.run(
        catalog.division(division).part(only, seeds), Path(submission), dict(parameters or {}),
        runtime=runtime, store=Path(store), watch=watched(watcher), say=unsaid, cross=cross,
    )  # fmt: skip
    return Record("result", whole, folder)


def compare(
    submissions: Sequence[str | Path] = (),
    division: str = "nano",
    *,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    minutes: float | None = None,
    parallel: int | None = None,
    runtime: str = "auto",
    store: str | Path = STORE,
    watcher: Watcher | None = None,
) -> Record:
    """Several submissions in one table (all of the catalogue if none is named), as `emperf compare`.

    `minutes`: no training is started after so many. Raises UserError as `run`.
    """
    whole, folder = comparison.compare(
        catalog.division(division).part(only, seeds), comparison.entries([str(one) for one in submissions]),
        runtime=runtime, store=Path(store), watch=watched(watcher), say=unsaid, minutes=minutes, parallel=parallel,
    )  # fmt: skip
    return Record("comparison", whole, folder)


def evaluate(
    targets: Sequence[str | Path],
    base: str | None = None,
    division: str = "nano",
    *,
    poison: str | None = None,
    controls: Mapping[str, str | Path] | None = None,
    random: bool = False,
    judges: Sequence[str] = (),
    sampling: Sampling | None = None,
    budget: float = 5.0,
    store: str | Path = STORE,
    watcher: Watcher | None = None,
) -> Record:
    """Adapters that somebody already has, measured beside their base and controls, as `emperf eval`.

    `targets`: folders that PEFT saved, or names of model cards. `controls`: name -> folder. `random`: beside each
    target, an adapter of its norms in random directions. `budget`: US dollars that an endpoint may cost a model. Raises
    UserError for what cannot be measured, before anything is.
    """
    whole, folder = evaluating.evaluate(
        [Path(one) for one in targets], base=base, division=division, poison=poison,
        controls={name: Path(one) for name, one in (controls or {}).items()}, random=random,
        chosen=[catalog.judge(name) for name in judges], sampling=sampling or Sampling(),
        store=Path(store), watch=watched(watcher), budget=budget,
    )  # fmt: skip
    return Record("evaluation", whole, folder)


def rescore(run: str | Path, *, store: str | Path = STORE, watcher: Watcher | None = None) -> Record:
    """The stored weights of a run (its folder, or its id), read again with today's protocols, as `emperf rescore`."""
    return Record(*again.rescore(folder_of(run, store), watched(watcher)))


def load(run: str | Path, *, store: str | Path = STORE) -> Record:
    """The record of a run (its folder, or its id), as it lies there.

    Raises UserError if there is none, or if it was written by another version.
    """
    folder = folder_of(run, store)
    kind = records.kind_in(folder)
    return Record(kind, records.read(kind, folder / f"{kind}.json"), folder)


def folder_of(run: str | Path, store: str | Path) -> Path:
    folder = Path(run) if Path(run).is_dir() else Path(store) / "runs" / os.fspath(run)
    if not folder.is_dir():
        raise UserError(f"There is no run {run}", "Give a run's folder, or its id and the store.")
    return folder


def watched(watcher: Watcher | None) -> AbstractContextManager[Watcher]:
    return nullcontext(watcher or Silent())


def unsaid(text: str) -> None:
    """The API prints nothing."""
