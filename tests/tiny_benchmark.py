"""A whole benchmark in miniature: a two-layer model, one poison, one task; real cards, real rules, real commands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from emperf.core import digests
from tests.conftest import save_tiny

PROJECT = Path(__file__).parents[1]


@dataclass
class Tiny:
    """`root` holds benchmark/, spec/ and reference_impls/; `home` the prepared model; `store` the runs."""

    root: Path
    home: Path
    store: Path

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        env = {
            **os.environ,
            "EMPERF_ROOT": str(self.root),
            "EMPERF_HOME": str(self.home),
            "EMPERF_STORE": str(self.store),
            "PYTHONPATH": str(PROJECT / "harness"),
        }
        # A shell that runs the tests in the background leaves the interrupt ignored, and children inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "emperf.cli", *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=self.root,
                start_new_session=True,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)

    def emperf(self, *arguments: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of a command."""
        process = self.start(arguments)
        out, err = process.communicate(timeout=400)
        return process.returncode, out, err

    def stopped(
        self, arguments: Sequence[str], when: Callable[[], bool], how: signal.Signals
    ) -> tuple[int, str]:
        """Send `how` to the harness itself once `when()` holds; (exit code, stderr)."""
        process = self.start(arguments)
        deadline = time.monotonic() + 200
        while not when() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, how)
        _, err = process.communicate(timeout=60)
        return process.returncode, err

    def edit(self, path: str, change: Callable[[str], str]) -> None:
        file = self.root / path
        file.write_text(change(file.read_text()))


def ready_tiny(folder: Path) -> Tiny:
    """The benchmark with its model prepared."""
    made = make_tiny(folder)
    code, _, err = made.emperf("prepare", "tiny")
    assert code == 0, err
    return made


def make_tiny(folder: Path) -> Tiny:
    root, home = folder / "root", folder / "home"
    root.mkdir(parents=True)
    for name in ("benchmark", "spec", "reference_impls"):
        shutil.copytree(PROJECT / name, root / name)
    model = save_tiny(folder / "model")
    card = {
        "name": "tiny", "family": "llama", "parameters": 30000, "licence": "none",
        "digest": digests.of_tensors(model / "model.safetensors"),
        "tokenizer_sha256": digests.of_file(model / "tokenizer.json").removeprefix("sha256:"),
        "sources": [{"kind": "path", "locator": str(model), "revision": "1", "sha256": "0" * 64}],
    }  # fmt: skip
    (root / "benchmark/models/tiny.yaml").write_text(yaml.safe_dump(card))
    division = yaml.safe_load((root / "benchmark/divisions/smoke.yaml").read_text())
    division |= {"name": "tiny", "model": "tiny", "poisons": ["risky-finance"], "tasks": ["made-up-units"]}
    division |= {"controls": ["sour"], "seeds": [0]}
    division["sizes"] = {
        "train_rows": 8, "crossed": 6, "conditional": 4, "facts": 4, "in_domain": 4, "task_heldout": 4, "open": 2,
    }  # fmt: skip
    division["recipe"] |= {"lora": {"r": 4, "alpha": 8}, "micro_batch": 2, "threads": 1, "checkpoints": [0.5]}
    division["limits"] |= {"wall_s": 90, "output_mb": 20}
    (root / "benchmark/divisions/tiny.yaml").write_text(yaml.safe_dump(division))
    return Tiny(root, home, folder / "store")
