"""doctor names what is missing with the command that gets it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from emperf import catalog
from emperf.cli import main
from emperf.tools import doctor
from emperf.tools.doctor import Check


def test_whatever_is_missing_has_a_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("EMPERF_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {check.name: check for check in doctor.checks()}
    assert [check.name for check in found.values() if not check.ok and not check.fix] == []
    assert "tools/engine.sh start" in found["Docker engine"].fix
    assert "emperf prepare --image" in found["submission image"].fix
    assert found["model smollm2-135m"].fix == "emperf prepare smollm2-135m"
    assert not found["bubblewrap"].ok
    assert found["torch"].ok and found["benchmark"].ok


def test_without_a_benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMPERF_ROOT", str(tmp_path))
    assert not doctor.benchmark().ok and doctor.models() == []
    assert len(doctor.abilities([])) == 2


def test_a_library_that_cannot_be_imported() -> None:
    assert doctor.library("no_such_library") == Check(
        "no_such_library",
        False,
        "cannot be imported (ModuleNotFoundError: No module named 'no_such_library')",
        doctor.INSTALL,
    )


def test_what_is_printed() -> None:
    libraries = [Check(name, True, "1") for name in ("torch", "deepspeed", "transformers", "peft")]
    found = [
        *libraries,
        Check("Docker engine", False, "none [bold]", "start it"),
        Check("model smollm2-135m", True, "there"),
    ]
    out = io.StringIO()
    doctor.print_checks(found, Console(file=out))
    text = out.getvalue()
    assert "Docker engine: start it" in text and "none [bold]" in text
    assert "runtime docker (certifiable): no, missing: Docker engine, submission image" in text
    assert "division smoke: yes" in text


def test_json_says_what_can_run_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "checks", lambda: [Check("Docker engine", False, "none", "start it")])
    ran = CliRunner().invoke(main, ["doctor", "--json"])
    record = json.loads(ran.output)
    assert record["checks"] == [{"name": "Docker engine", "ok": False, "found": "none", "fix": "start it"}]
    docker, process, *divisions = record["can_run"]
    assert not docker["runs"] and docker["why_not"] == "missing: Docker engine, submission image"
    assert process["runs"] and {one["name"] for one in divisions} == set(catalog.listed("divisions"))
