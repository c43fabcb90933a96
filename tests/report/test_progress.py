"""Progress as plain lines and in a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from emperf.report.progress import Progress

OK = {"failure": None}
BAD = {"failure": {"kind": "diverged", "detail": "the loss is nan"}}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(Console(file=out, width=40), clock) as progress:
        progress.begin(11, 1)
        progress.cell("base model")
        clock.now += 9
        progress.end("base model", None)
        progress.cell("kl on bad-medical, seed 0")
        progress.note("training")
        progress.tick(3.0)
        clock.now += 52
        progress.end("kl on bad-medical, seed 0", OK)
        progress.cell("kl on record-line, seed 0")
        clock.now += 28
        progress.end("kl on record-line, seed 0", BAD)
    assert out.getvalue().splitlines() == [
        "1 of 11 are there already.",
        "[2/11] base model: started",
        "[2/11] base model: done in 9 s",
        "[3/11] kl on bad-medical, seed 0: started",
        "[3/11] kl on bad-medical, seed 0: done in 52 s, 7 min left",
        "[4/11] kl on record-line, seed 0: started, 7 min left",
        "[4/11] kl on record-line, seed 0: failed (diverged: the loss is nan) after 28 s, 5 min left",
    ]


def lines(out: io.StringIO) -> list[str]:
    return out.getvalue().splitlines()


def test_what_an_earlier_run_gave_counts_towards_no_time_left() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(Console(file=out, width=40), clock) as progress:
        progress.begin(3, 0)
        progress.end("none on bad-medical, seed 0", OK)
        progress.cell("kl on bad-medical, seed 0")
        clock.now += 30
        progress.end("kl on bad-medical, seed 0", OK)
    assert lines(out) == [
        "[1/3] none on bad-medical, seed 0: taken from an earlier run",
        "[2/3] kl on bad-medical, seed 0: started",
        "[2/3] kl on bad-medical, seed 0: done in 30 s, 30 s left",
    ]


def test_cells_side_by_side_have_their_own_times() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(Console(file=out, width=40), clock) as progress:
        progress.begin(6, 0)
        progress.cell("a")
        clock.now += 10
        progress.cell("b")
        clock.now += 50
        progress.end("a", OK)
        clock.now += 10
        progress.end("b", OK)
    assert lines(out)[2:] == ["[1/6] a: done in 60 s, 2 min left", "[2/6] b: done in 60 s, 2 min left"]


def terminal() -> tuple[io.StringIO, Console]:
    out = io.StringIO()
    return out, Console(file=out, force_terminal=True, width=80, _environ={"TERM": "xterm"})


def test_live_bar_says_stage_and_time_left() -> None:
    out, console = terminal()
    clock = Clock()
    with Progress(console, clock) as progress:
        progress.begin(4, 0)
        progress.cell("none on bad-medical, seed 0")
        clock.now += 60
        progress.end("none on bad-medical, seed 0", OK)
        progress.cell("kl on bad-medical, seed 0")
        progress.note("training")
        clock.now += 20
        progress.tick(18.0)
        console.print(progress._render())
    text = out.getvalue()
    assert "1/4, 3 min left" in text
    assert "kl on bad-medical, seed 0: training 18 s (20 s in all)" in text


def test_an_interrupt_gives_the_cursor_back() -> None:
    out, console = terminal()
    with pytest.raises(KeyboardInterrupt), Progress(console) as progress:
        progress.begin(4, 0)
        progress.cell("kl on bad-medical, seed 0")
        raise KeyboardInterrupt
    text = out.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    progress.end("kl on bad-medical, seed 0", OK)
