"""Progress as plain lines and in a terminal."""

from __future__ import annotations

import io
import threading
import time

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
        "[3/11] kl on bad-medical, seed 0: done in 52 s",
        "[4/11] kl on record-line, seed 0: started",
        "[4/11] kl on record-line, seed 0: failed (diverged: the loss is nan) after 28 s",
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
        "[2/3] kl on bad-medical, seed 0: done in 30 s, about 30 s left",
    ]


def test_cells_side_by_side_have_their_own_times() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(Console(file=out, width=40), clock) as progress:
        progress.begin(4, 0)
        progress.cell("a")
        clock.now += 10
        progress.cell("b")
        clock.now += 50
        progress.end("a", OK)
        clock.now += 10
        progress.end("b", OK)
    assert lines(out)[2:] == ["[1/4] a: done in 60 s", "[2/4] b: done in 60 s, about 60 s left"]


def terminal() -> tuple[io.StringIO, Console]:
    out = io.StringIO()
    return out, Console(file=out, force_terminal=True, width=80, _environ={"TERM": "xterm"})


def test_live_bar_says_stage_and_time_left() -> None:
    out, console = terminal()
    clock = Clock()
    with Progress(console, clock) as progress:
        progress.begin(2, 0)
        progress.cell("none on bad-medical, seed 0")
        clock.now += 60
        progress.end("none on bad-medical, seed 0", OK)
        progress.cell("kl on bad-medical, seed 0")
        progress.note("training")
        clock.now += 20
        progress.tick(18.0)
        console.print(progress._render())
    text = out.getvalue()
    assert "1/2, about 40 s left" in text
    assert "kl on bad-medical, seed 0: training 18 s (20 s in all)" in text


def test_outside_of_a_terminal_a_line_a_minute_says_what_is_going_on() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(Console(file=out, width=40), clock) as progress:
        progress.begin(9, 0)
        progress.cell("none on bad-medical, seed 0")
        progress.remind()
        progress.note("training")
        for second in range(120):
            clock.now += 1
            progress.tick(second + 1.0)
            progress.remind()
        progress.note("reading paired statements")
        clock.now += 60
        progress.remind()
    assert lines(out) == [
        "[1/9] none on bad-medical, seed 0: started",
        "[1/9] none on bad-medical, seed 0: training 55 s (55 s in all)",
        "[1/9] none on bad-medical, seed 0: training 2 min (2 min in all)",
        "[1/9] none on bad-medical, seed 0: reading paired statements 60 s (3 min in all)",
    ]


def test_the_line_comes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emperf.report.progress.LOOK_S", 0.01)
    out, clock = io.StringIO(), Clock()
    with Progress(Console(file=out, width=40), clock) as progress:
        progress.begin(9, 0)
        progress.cell("none on bad-medical, seed 0")
        clock.now += 60
        deadline = time.monotonic() + 20
        while len(lines(out)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert lines(out)[1:] == ["[1/9] none on bad-medical, seed 0: 60 s"]


def test_notes_belong_to_the_cell_of_their_thread() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(Console(file=out, width=40), clock) as progress:
        progress.begin(9, 0)
        turns = [threading.Event() for _ in range(2)]

        def work(label: str, stage: str, wait: threading.Event) -> None:
            progress.cell(label)
            wait.wait(20)
            progress.note(stage)

        threads = [
            threading.Thread(target=work, args=(label, stage, turn))
            for (label, stage), turn in zip(
                [("a on x, seed 0", "training"), ("b on x, seed 0", "reading")], turns, strict=True
            )
        ]
        for thread in threads:
            thread.start()
        # The last to begin notes first.
        for turn, thread in zip(reversed(turns), reversed(threads), strict=True):
            turn.set()
            thread.join()
        clock.now += 60
        progress.remind()
    said = lines(out)[-1]
    assert "a on x, seed 0: training 60 s" in said and "b on x, seed 0: reading 60 s" in said


def test_a_slow_first_cell_does_not_set_the_time_left() -> None:
    """What was seen: 3 h 52 min after a first cell of twice the others' length."""
    out, clock = io.StringIO(), Clock()
    with Progress(Console(file=out, width=40), clock) as progress:
        progress.begin(110, 0)
        for number, seconds in enumerate((126, 60, 62, 61)):
            label = f"kl on set-{number}, seed 0"
            progress.cell(label)
            clock.now += seconds
            progress.end(label, OK)
    ends = [line for line in lines(out) if "done" in line]
    assert [line.partition("s, about ")[2] for line in ends] == ["", "", "1 h 51 min left", "1 h 49 min left"]


def test_the_time_left_knows_kinds_of_cells_where_labels_are_known() -> None:
    out, clock = io.StringIO(), Clock()
    took = {"none": 10, "lisa": 100}
    labels = [f"{method} on {name}, seed 0" for name in ("x", "y", "z") for method in took]
    with Progress(Console(file=out, width=40), clock) as progress:
        progress.begin(6, 0, labels)
        for label in labels[:3]:
            progress.cell(label)
            clock.now += took[label.partition(" ")[0]]
            progress.end(label, OK)
    assert lines(out)[-1].endswith("about 4 min left")  # 100 + 10 + 100 s, not 3 times the median of 10


def test_an_interrupt_gives_the_cursor_back() -> None:
    out, console = terminal()
    with pytest.raises(KeyboardInterrupt), Progress(console) as progress:
        progress.begin(4, 0)
        progress.cell("kl on bad-medical, seed 0")
        raise KeyboardInterrupt
    text = out.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    progress.end("kl on bad-medical, seed 0", OK)
