"""How a run goes on: a live bar in a terminal, a plain line at each cell's start and end elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from emperf.report.numbers import duration, printable


class Progress:
    """Keeps `engine.Watcher`. A context manager: on any exit, Ctrl-C too, the terminal is as before.

    The time left is the mean duration of the cells finished here times the cells left, over as many as ran side by
    side; the base model, which is only read, counts as a cell but not towards that mean, and what ends without having
    begun was taken from an earlier run. `clock`: seconds.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console or Console(), clock
        self._live: Live | None = None
        self._total = self._done = 0
        self._note = ""
        self._started: dict[str, float] = {}
        self._side = 1
        self._trained_s: float | None = None
        self._durations: list[float] = []

    def __enter__(self) -> Progress:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
            )
            live.start()
            self._live = live
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begin(self, total: int, done: int) -> None:
        self._total, self._done = total, done
        if done:
            self._say(f"{done} of {total} are there already.")

    def cell(self, label: str) -> None:
        self._note, self._trained_s = "", None
        self._started[label] = self._clock()
        self._side = max(self._side, len(self._started))
        if self._live is None:
            self._say(f"[{self._done + 1}/{self._total}] {label}: started{self._left()}")

    def note(self, text: str) -> None:
        self._note, self._trained_s = text, None

    def tick(self, elapsed_s: float) -> None:
        self._trained_s = elapsed_s

    def end(self, label: str, record: dict[str, Any] | None) -> None:
        started = self._started.pop(label, None)
        self._done += 1
        if started is None:
            self._say(f"[{self._done}/{self._total}] {label}: taken from an earlier run{self._left()}")
            return
        took = self._clock() - started
        if record is not None:
            self._durations.append(took)
        failure = record["failure"] if record else None
        how = (
            f"failed ({failure['kind']}: {printable(failure['detail'], 200)}) after" if failure else "done in"
        )
        self._say(f"[{self._done}/{self._total}] {label}: {how} {duration(took)}{self._left()}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _left(self) -> str:
        """`, 6 min left`, or nothing while no cell tells."""
        cells = self._total - self._done
        if not self._durations or not cells:
            return ""
        mean = sum(self._durations) / len(self._durations)
        # A copy: other threads begin and end cells meanwhile.
        spent = sum(min(self._clock() - started, mean) for started in list(self._started.values()))
        return f", {duration((cells * mean - spent) / self._side)} left"

    def _render(self) -> RenderableType:
        if not self._total:
            return Text("")
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(self._total, self._done, width=40), f"{self._done}/{self._total}{self._left()}"
        )
        going_on = list(self._started.items())
        if not going_on:
            return bar
        label, started = going_on[-1]
        note = f": {self._note}" if self._note else ""
        trained = "" if self._trained_s is None else f" {duration(self._trained_s)}"
        now = f"{label}{note}{trained} ({duration(self._clock() - started)} in all)"
        return Group(bar, Text(printable(now, max(20, self._console.width - 1)), no_wrap=True))
