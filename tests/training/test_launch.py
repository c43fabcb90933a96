"""Several processes: they start where no name is known, and the first that fails decides how it ends."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.training.test_loop import run, submission

from emperf.training import launch as launching
from emperf.training.__main__ import DIVERGED, HOOK, NO_ROOM

# Namespaces of a container without a network: the loopback interface, and a host name that nothing knows.
WALLS = (
    "unshare", "--user", "--map-root-user", "--net", "--uts",
    "sh", "-c", 'ip link set lo up && hostname nowhere-at-all && exec "$@"', "sh",
)  # fmt: skip


def walls() -> tuple[str, ...]:
    try:
        works = subprocess.run([*WALLS, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    return WALLS if works else ()


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (
            "    def loss(self, step):\n"
            "        off = step.index == 1 and __import__('os').environ['RANK'] == '1'\n"
            "        return step.task_loss * (float('nan') if off else 1)\n",
            DIVERGED,
            "the loss is nan at step 1",
        ),
        (
            "    def after_step(self, step):\n        if __import__('os').environ['RANK'] == '1':\n"
            "            raise KeyError('gone')\n",
            HOOK,
            "Mine.after_step failed at step 0 (mitigation.py, line 7): KeyError: 'gone'",
        ),
        (
            "    def finish(self, context):\n"
            "        if __import__('os').environ['RANK'] == '0':\n"
            "            __import__('os').symlink('/dev/full', 'OUT/adapter.partial')\n",
            NO_ROOM,
            "no room is left below /out",
        ),
    ],
)
def test_a_process_that_fails_ends_the_job_with_its_code_and_cause(
    tiny: Path, tmp_path: Path, body: str, code: int, words: str
) -> None:
    mine = submission(tmp_path / "mine", body.replace("OUT", str(tmp_path / "job/out")))
    found, log, _ = run(tmp_path / "job", tiny, mine, walls=walls(), micro_batch=2, processes=2)
    assert found == code, log
    assert log.strip().splitlines()[-1] == f"emperf.training: {words}"


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the trainer's place, to be written by the test."""
    program = tmp_path / "rank"
    monkeypatch.setattr(sys, "executable", str(program))
    return program


def written(program: Path, lines: str) -> None:
    program.write_text(f"#!/bin/sh\n{lines}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("lines", "code", "last"),
    [
        ("exit 0", 0, ""),
        ('[ $RANK = 0 ] && exec sleep 60; echo "cause" >&2; exit 3', 3, "cause"),
        ('[ $RANK = 1 ] && exec sleep 60; echo "cause" >&2; exit 6', 6, "cause"),
        # Ends later, and of the other's end.
        ('[ $RANK = 0 ] && { sleep 0.5; echo lost >&2; exit 1; }; echo "cause" >&2; exit 5', 5, "cause"),
        (
            "[ $RANK = 0 ] && exec sleep 60; kill -9 $$",
            137,
            "emperf.training: rank 1 ended with exit code 137",
        ),
    ],
)
def test_the_first_process_that_fails_decides(
    ranks: Path, capfd: pytest.CaptureFixture[str], lines: str, code: int, last: str
) -> None:
    written(ranks, lines)
    started = time.monotonic()
    assert launching.launch(2, ["--in", "x"]) == code
    assert time.monotonic() - started < 30
    said = capfd.readouterr().err.strip().splitlines() or [""]
    assert said[-1].startswith(last)


def test_each_process_is_told_its_number_and_an_address_that_needs_no_name(
    ranks: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    written(ranks, 'echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $*" >&2')
    assert launching.launch(3, ["--in", "x"]) == 0
    assert sorted(capfd.readouterr().err.splitlines()) == [
        f"{i} {i} 3 127.0.0.1 -m emperf.training --in x --rank {i}" for i in range(3)
    ]


def test_one_process_belongs_to_no_cluster(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that finds a rank in the environment, TRL's for one, waits for the other processes."""
    for name, value in {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "MASTER_ADDR": "10.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    body = (
        "    def train(self, rows, context):\n"
        "        import os\n"
        "        names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')\n"
        "        left = [name for name in names if name in os.environ]\n"
        "        if left:\n            raise ValueError(f'left: {left}')\n"
        "        return True\n"
    )
    code, log, _ = run(tmp_path / "job", tiny, submission(tmp_path / "mine", body))
    assert code == 0, log
