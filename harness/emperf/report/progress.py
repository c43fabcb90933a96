"""How a run goes on: a live bar in a terminal; elsewhere a line at each cell's start and end, and one a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from emperf.report import console as consoles
from emperf.report.numbers import duration, printable
from emperf.report.timeleft import TimeLeft

# Outside of a terminal a line is printed where none was for this long; how often that is looked at.
SILENCE_S, LOOK_S = 55.0, 5.0


@dataclass
class _Running:
    """A cell that is going on. `stage`: what of it, and when that began, by the clock; `ticked_s`: seconds of
    training, as last told."""

    began: float
    stage: str = ""
    stage_began: float = 0.0
    ticked_s: float | None = None


class Progress:
    """Keeps `engine.Watcher`. A context manager: on any exit, Ctrl-C too, the terminal is as before.

    Cells may run side by side, each in a thread of its own: notes and ticks belong to the cell that their thread began
    last. What ends without having begun was taken from an earlier run. `clock`: seconds.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console or consoles.make(), clock
        self._live: Live | None = None
        self._total = self._done = 0
        self._labels: list[str] = []
        self._running: dict[str, _Running] = {}
        self._of_thread: dict[int, str] = {}
        self._side = 1
        self._time_left = TimeLeft()
        self._last_line = clock()
        self._closed = threading.Event()
        self._reminder: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
            )
            live.start()
            self._live = live
        else:
            self._reminder = threading.Thread(target=self._remind, daemon=True, name="progress")
            self._reminder.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._reminder is not None:
            self._reminder.join()

    def begin(self, total: int, done: int, labels: Sequence[str] = ()) -> None:
        """`labels`: those of the cells that are not done, where they are known; the time left is better for them."""
        self._total, self._done, self._labels = total, done, list(labels)
        if done:
            self._say(f"{done} of {total} are there already.")

    def cell(self, label: str) -> None:
        now = self._clock()
        self._of_thread[threading.get_ident()] = label
        self._running[label] = _Running(now, stage_began=now)
        self._side = max(self._side, len(self._running))
        if self._live is None:
            self._say(f"[{self._done + 1}/{self._total}] {label}: started{self._left()}")

    def note(self, text: str) -> None:
        running = self._current()
        if running is not None:
            running.stage, running.stage_began, running.ticked_s = text, self._clock(), None

    def tick(self, elapsed_s: float) -> None:
        running = self._current()
        if running is not None:
            running.ticked_s = elapsed_s

    def end(self, label: str, record: dict[str, Any] | None) -> None:
        running = self._running.pop(label, None)
        self._done += 1
        if label in self._labels:
            self._labels.remove(label)
        if running is None:
            self._say(f"[{self._done}/{self._total}] {label}: taken from an earlier run{self._left()}")
            return
        took = self._clock() - running.began
        # The base model is only read, which says nothing about cells whose labels are not known.
        if record is not None or self._labels:
            self._time_left.finished(label, took)
        failure = record["failure"] if record else None
        how = f"failed ({failure['kind']}: {printable(failure['detail'])}) after" if failure else "done in"
        self._say(f"[{self._done}/{self._total}] {label}: {how} {duration(took)}{self._left()}")

    def remind(self) -> None:
        """Print what is going on, if nothing was printed for a minute."""
        if self._running and self._clock() - self._last_line >= SILENCE_S:
            now = "; ".join(self._going_on())
            self._say(f"[{self._done + 1}/{self._total}] {now}{self._left()}")

    def _remind(self) -> None:
        while not self._closed.wait(LOOK_S):
            self.remind()

    def _current(self) -> _Running | None:
        """The cell of this thread; where it has none, the one that began last."""
        running = dict(self._running)
        own = running.get(self._of_thread.get(threading.get_ident(), ""))
        return own or next(reversed(running.values()), None)

    def _say(self, line: str) -> None:
        self._last_line = self._clock()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _left(self) -> str:
        """`, about 6 min left`, or nothing while no cell tells."""
        cells = self._total - self._done
        labels = self._labels[:cells]
        unfinished = [*labels, *[None] * (cells - len(labels))]
        # Copies: other threads begin and end cells meanwhile.
        running = {label: self._clock() - one.began for label, one in dict(self._running).items()}
        seconds = self._time_left.seconds(unfinished, running, self._side)
        return "" if seconds is None else f", about {duration(seconds)} left"

    def _going_on(self) -> list[str]:
        """`kl on bad-medical, seed 0: training 18 s (20 s in all)`, one a cell."""
        now, lines = self._clock(), []
        for label, one in dict(self._running).items():
            stage_s = now - one.stage_began if one.ticked_s is None else one.ticked_s
            whole = duration(now - one.began)
            stage = f"{one.stage} {duration(stage_s)} ({whole} in all)" if one.stage else whole
            lines.append(printable(f"{label}: {stage}"))
        return lines

    def _render(self) -> RenderableType:
        if not self._total:
            return Text("")
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(self._total, self._done, width=40), f"{self._done}/{self._total}{self._left()}"
        )
        return Group(bar, *(Text(line, overflow="fold") for line in self._going_on()))
