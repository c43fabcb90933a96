"""tools/sandbox.sh, with an apt-get that stands in for Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "sandbox.sh"
INSTALLS = '#!/bin/sh\necho "$@" >> "$LOG"\ncase "$*" in *bubblewrap) ln -s /bin/true "$BIN/bwrap";; esac\n'


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    def start(**programs: str) -> tuple[int, str, str]:
        """(exit code, stderr, what apt-get was asked) where nothing is installed but these programs."""
        folder, log = tmp_path / "bin", tmp_path / "log"
        folder.mkdir()
        for name in ("bash", "cat", "ln", "sh"):
            (folder / name).symlink_to(str(shutil.which(name)))
        for name, text in programs.items():
            (folder / name.replace("_", "-")).write_text(text)
            (folder / name.replace("_", "-")).chmod(0o755)
        env = {"PATH": str(folder), "LOG": str(log), "BIN": str(folder)}
        done = subprocess.run([SCRIPT], env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr, log.read_text() if log.exists() else ""

    return start


def test_what_is_there_is_not_installed(run: Callable[..., tuple[int, str, str]]) -> None:
    assert run(bwrap="#!/bin/sh\n", apt_get=INSTALLS) == (0, "", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_root_gets_it_on_debian(run: Callable[..., tuple[int, str, str]]) -> None:
    code, said, asked = run(apt_get=INSTALLS)
    assert (code, said) == (0, "")
    assert "install -y" in asked and "bubblewrap" in asked


@pytest.mark.parametrize("programs", [{}, {"apt_get": "#!/bin/sh\nexit 1\n"}])
def test_its_lack_is_said_aloud(run: Callable[..., tuple[int, str, str]], programs: dict[str, str]) -> None:
    code, said, _ = run(**programs)
    assert code == 1
    assert "NO SANDBOX" in said and "apt-get install bubblewrap" in said
