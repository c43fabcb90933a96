"""Contenders in turn: each is a process that works when asked and waits while the others do.

The bench and a contender talk in JSON lines, one request and one reply a turn, over the contender's first standard
streams; whatever else a contender prints is kept for the case that it fails.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from emperf.core.errors import UserError
from emperf.core.sources import PACKAGE
from emperf.training.threads import WAITING

PEAK_SHAPE = (1024, 576, 1536)


@dataclass(frozen=True)
class Turn:
    """What a contender did in one turn, which took `seconds` by the clock and `cpu_s` of processor time.

    `tokens`: real ones, no padding. `peak`: FLOP/s of the machine's best matrix product right before or after the turn.
    Of training also `positions`: what went through the decoder, padding included and a shared head once; `heads`: what
    went through the output head.
    """

    tokens: int
    seconds: float
    cpu_s: float
    peak: float
    positions: int = 0
    heads: int = 0

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def median_rate(turns: Sequence[Turn]) -> float:
    return statistics.median(turn.rate for turn in turns)


def best(turns: dict[str, list[Turn]]) -> str:
    """The contender with the highest median rate."""
    return max(turns, key=lambda name: median_rate(turns[name]))


class Contender:
    """A program `python -m emperf.tools.bench.<module> SPEC` that takes turns. It ends with the `with` block."""

    def __init__(self, module: str, spec: dict[str, Any], threads: int) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the child)
        environment = {
            **WAITING, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1",
            "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "",
            "MASTER_PORT": str(free_port()), "PYTHONPATH": str(PACKAGE.parent),
        }  # fmt: skip
        self._child = subprocess.Popen(
            [sys.executable, "-m", f"emperf.tools.bench.{module}", json.dumps({**spec, "threads": threads})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env={**os.environ, **environment},
        )  # fmt: skip

    def turn(self, **request: Any) -> Turn:
        """Ask for one turn and wait for it. Raises UserError if the contender has ended."""
        assert self._child.stdin and self._child.stdout
        with suppress(BrokenPipeError):
            self._child.stdin.write((json.dumps(request) + "\n").encode())
            self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
            raise UserError(
                f"A contender ended (exit code {self._child.wait()}): {said[-1][:300]}",
                "Mend that, then bench again.",
            )
        return Turn(**json.loads(line))

    def close(self) -> None:
        self._child.kill()
        self._child.communicate()
        self._log.close()

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Channel:
    """The contender's end."""

    def __init__(self) -> None:
        self._replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def wait(self) -> dict[str, Any]:
        """The next request; ends the process when there is none. Memory held for later goes back to the system."""
        if sys.platform == "linux":
            with suppress(OSError, AttributeError):
                ctypes.CDLL("libc.so.6").malloc_trim(0)
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        request: dict[str, Any] = json.loads(line)
        return request

    def reply(self, **facts: Any) -> None:
        self._replies.write(json.dumps(facts) + "\n")
        self._replies.flush()


class Stopwatch:
    """Measures the peak rate, then time; `stop` gives a Turn's seconds, cpu_s and peak."""

    def __init__(self) -> None:
        self._peak = peak_rate()
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> dict[str, float]:
        seconds, cpu_s = time.perf_counter() - self._started, time.process_time() - self._cpu
        return {"seconds": seconds, "cpu_s": cpu_s, "peak": max(self._peak, peak_rate())}


Pace = Generator[None, tuple[int, int, int], None]


def pace(channel: Channel) -> Pace:
    """Cuts a training run into turns: it is sent each finished step's (tokens, positions, heads).

    A request's first `left_out` steps are not timed (memory is fetched anew after a wait), its next `steps` are.
    """
    while True:
        request = channel.wait()
        for _ in range(request["left_out"]):
            yield
        sums = [0, 0, 0]
        watch = Stopwatch()
        for _ in range(request["steps"]):
            sums = [total + new for total, new in zip(sums, (yield), strict=True)]
        channel.reply(**watch.stop(), tokens=sums[0], positions=sums[1], heads=sums[2])


def peak_rate(seconds: float = 0.5) -> float:
    """FLOP/s of the fastest float32 product of PEAK_SHAPE within `seconds`, with the threads that torch uses."""
    import torch

    rows, inner, columns = PEAK_SHAPE
    left, weight = torch.randn(rows, inner), torch.randn(columns, inner)
    fastest, end = float("inf"), time.perf_counter() + seconds
    with torch.inference_mode():
        while time.perf_counter() < end:
            started = time.perf_counter()
            torch.nn.functional.linear(left, weight)
            fastest = min(fastest, time.perf_counter() - started)
    return 2 * rows * inner * columns / fastest


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listened to just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
