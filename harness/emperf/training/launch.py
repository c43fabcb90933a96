"""A job of several processes: one a rank, on this machine, without a look-up of any name."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

# How long an ended process may take to go, seconds.
PATIENCE_S = 5.0


class Rank:
    """One process. What it writes to stderr is passed on; `last` is the last line of it that says something."""

    def __init__(self, number: int, command: Sequence[str], environment: dict[str, str]) -> None:
        self.number, self.last = number, ""
        own = {"RANK": str(number), "LOCAL_RANK": str(number)}
        self._process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, errors="replace", env={**environment, **own}
        )
        self._reader = threading.Thread(target=self._pass_on, daemon=True)
        self._reader.start()

    def report_end(self, ended: queue.Queue[tuple[Rank, int]]) -> None:
        """Put the rank and its exit code into `ended` as soon as it has one; 128 + N where signal N ended it."""

        def wait() -> None:
            code = self._process.wait()
            ended.put((self, code if code >= 0 else 128 - code))

        threading.Thread(target=wait, daemon=True).start()

    def end(self) -> None:
        """End it, where it still runs, and pass on what is left of its words."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(PATIENCE_S)

    def _pass_on(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self.last = line.strip() or self.last
            sys.stderr.write(line)
            sys.stderr.flush()


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run the trainer in so many processes; 0, or the exit code of the first that failed.

    The others are then ended, for they would wait for it, and its last line is printed once more, below theirs.
    """
    command = [sys.executable, "-m", "emperf.training", *arguments]
    environment = {
        **os.environ, "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    before = signal.signal(signal.SIGTERM, leave)
    ended: queue.Queue[tuple[Rank, int]] = queue.Queue()
    ranks: list[Rank] = []
    failed, code = None, 0
    try:
        for number in range(processes):
            ranks.append(Rank(number, [*command, "--rank", str(number)], environment))
            ranks[-1].report_end(ended)
        for _ in range(processes):
            rank, code = ended.get()
            if code:
                failed = rank
                break
    finally:
        for rank in ranks:
            rank.end()
        signal.signal(signal.SIGTERM, before)
    if failed:
        nothing = f"emperf.training: rank {failed.number} ended with exit code {code} and said nothing"
        print(failed.last or nothing, file=sys.stderr, flush=True)
    return code


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def leave(number: int, _: object) -> NoReturn:
    """End as the signal would, but by way of what has to be put away."""
    sys.exit(128 + number)
