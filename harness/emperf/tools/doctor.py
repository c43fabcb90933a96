"""What this machine has, what it lacks, which command gets that, and what it can run."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from emperf import catalog
from emperf.catalog import prepare
from emperf.core import paths
from emperf.core.errors import CellFailure, UserError
from emperf.report.numbers import printable
from emperf.report.tables import Column, FittedTable

INSTALL = "python -m pip install -r requirements.lock && python -m pip install --no-deps -e ."
ENGINE, IMAGE, SANDBOX, GPU = "Docker engine", "submission image", "bubblewrap", "GPU"
DISK_BYTES = 5_000_000_000


@dataclass(frozen=True)
class Check:
    """One thing looked at. `found`: what is there; `fix`: what gets the missing, else empty."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def checks() -> list[Check]:
    """Every check, whatever fails. Takes seconds, since libraries are really imported."""
    return [
        python(),
        *(library(name) for name in ("torch", "deepspeed", "transformers", "peft")),
        gpu(),
        nvml(),
        size(),
        engine(),
        image(),
        sandbox(),
        cgroup(),
        benchmark(),
        *models(),
    ]


def python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("Python", ok, platform.python_version(), "" if ok else "Install Python 3.11 or newer.")


def library(name: str) -> Check:
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            module = importlib.import_module(name)
    except Exception as error:  # an import runs any code, and fails in any way
        return Check(name, False, printable(f"cannot be imported ({type(error).__name__}: {error})"), INSTALL)
    return Check(name, True, str(module.__version__))


def gpu() -> Check:
    try:
        import torch
    except ImportError:
        return Check(GPU, False, "unknown without torch", INSTALL)
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Check(GPU, True, ", ".join(names) or "none: cells run on the CPU")


def nvml() -> Check:
    try:
        library = importlib.import_module("pynvml")
    except ImportError:
        return Check("NVML", False, "nvidia-ml-py is not installed", INSTALL)
    try:
        library.nvmlInit()
        version = str(library.nvmlSystemGetDriverVersion())
        library.nvmlShutdown()
    except library.NVMLError as error:
        no_gpu = not any(Path("/dev").glob("nvidia[0-9]*"))
        if no_gpu:
            return Check("NVML", True, "not needed: no NVIDIA device")
        return Check(
            "NVML", False, str(error), "Install NVIDIA's driver: GPU memory and energy are not metered."
        )
    return Check("NVML", True, f"driver {version}")


def size() -> Check:
    import psutil

    memory, free = psutil.virtual_memory().total, shutil.disk_usage(Path.cwd()).free
    cores = psutil.cpu_count(logical=False) or os.cpu_count()
    ok = free >= DISK_BYTES
    fix = "" if ok else f"Free at least {DISK_BYTES / 1e9:.0f} GB, or use --store on another disk."
    found = f"{cores} cores, {memory / 1e9:.1f} GB memory, {free / 1e9:.0f} GB free here"
    return Check("machine", ok, found, fix)


def engine() -> Check:
    from emperf.runtimes.docker import engine_answers

    answers, said = engine_answers()
    return Check(ENGINE, answers, f"version {said}", "") if answers else Check(
        ENGINE, False, said.partition(";")[0], 'eval "$(tools/engine.sh start)"'
    )  # fmt: skip


def image() -> Check:
    from emperf.runtimes.images import base_image_tag, content_of, resolve_image

    tag, fix = base_image_tag(), "emperf prepare --image"
    try:
        content_of(tag)
        return Check(IMAGE, True, f"{tag}, {resolve_image(tag)[:19]}")
    except UserError as error:
        return Check(IMAGE, False, error.cause, fix)
    except CellFailure:
        return Check(IMAGE, False, "unknown without an engine", f"Start an engine, then: {fix}")


def sandbox() -> Check:
    from emperf.runtimes.sandbox import why_no_walls

    why = why_no_walls()
    if not why:
        return Check(SANDBOX, True, "works")
    return Check(SANDBOX, False, why, "tools/sandbox.sh; user namespaces must be allowed")


def cgroup() -> Check:
    from emperf.meters.cgroup import Cgroup

    probe = Cgroup("emperf/doctor")
    if probe.version is None:
        return Check("cgroup", False, "no control groups here", "Mount /sys/fs/cgroup.")
    writable = probe.create(64 << 20, 8, 1.0)
    probe.remove()
    fix = (
        "" if writable else "Run as root, or in a delegated scope: systemd-run --user --scope -p Delegate=yes"
    )
    return Check(
        "cgroup", writable, f"version {probe.version}, {'writable' if writable else 'read-only'}", fix
    )


def benchmark() -> Check:
    try:
        folder = paths.project_folder("benchmark")
        found = ", ".join(f"{len(catalog.names(kind))} {kind}" for kind in ("divisions", "poisons", "tasks"))
    except UserError as error:
        return Check("benchmark", False, error.cause, error.fix)
    return Check("benchmark", True, f"{found} in {folder}")


def models() -> list[Check]:
    try:
        names = catalog.names("models")
    except UserError:
        return []
    return [_model(name) for name in names]


def _model(name: str) -> Check:
    try:
        return Check(f"model {name}", True, str(prepare.prepared(catalog.model(name))))
    except UserError as error:
        return Check(f"model {name}", False, error.cause, error.fix.removeprefix("Run: "))


@dataclass(frozen=True)
class Ability:
    """A runtime or a division. `why_not`: what keeps this machine from running it, empty if nothing does."""

    kind: str
    name: str
    note: str = ""
    why_not: str = ""


def abilities(done: list[Check]) -> list[Ability]:
    """Which runtimes and divisions this machine can run, and what keeps it from the others."""
    ok = {check.name: check.ok for check in done}
    lacks = [name for name in (ENGINE, IMAGE) if not ok.get(name)]
    walls = "sandboxed" if ok.get(SANDBOX) else "without a sandbox"
    runtimes = [
        Ability("runtime", "docker", "certifiable", _missing(lacks)),
        Ability("runtime", "process", f"development only, {walls}"),
    ]
    try:
        names = catalog.listed("divisions")
    except UserError:
        return runtimes
    return [*runtimes, *(Ability("division", name, why_not=_why_not(name, done)) for name in names)]


def _missing(things: list[str]) -> str:
    return f"missing: {', '.join(things)}" if things else ""


def _why_not(name: str, done: list[Check]) -> str:
    import psutil

    try:
        division = catalog.division(name)
    except UserError as error:
        return error.cause
    ok = {check.name: check.ok for check in done}
    lacks = [thing for thing in ("torch", "deepspeed", "transformers", "peft") if not ok.get(thing)]
    lacks += [] if ok.get(f"model {division.model}") else [f"model {division.model}"]
    if psutil.virtual_memory().total < division.limits.memory_bytes:
        lacks.append(f"{division.limits.memory_bytes / 1e9:.0f} GB memory")
    return _missing(lacks)


def as_record(done: list[Check]) -> dict[str, Any]:
    """For --json: `checks`, and what `can_run` with what keeps this machine from it."""
    can_run = [asdict(ability) | {"runs": not ability.why_not} for ability in abilities(done)]
    return {"checks": [asdict(check) for check in done], "can_run": can_run}


def print_checks(done: list[Check], console: Console) -> None:
    """A table, the commands that get what is missing, and what can be run."""
    rows = [
        (Text("ok", "green") if check.ok else Text("no", "bold red"), check.name, check.found)
        for check in done
    ]
    console.print(
        FittedTable([Column(head, number=False) for head in ("", "check", "found")], rows, keys=2),
        highlight=False,
    )
    missing = [check for check in done if not check.ok]
    lines = ["", "To get what is missing:"] if missing else []
    lines += [f"  {check.name}: {check.fix}" for check in missing]
    lines += ["", "This machine can run:", *(f"  {_line(ability)}" for ability in abilities(done))]
    # Commands are not wrapped, so that they can be copied.
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _line(ability: Ability) -> str:
    note = f" ({ability.note})" if ability.note else ""
    return f"{ability.kind} {ability.name}{note}: {f'no, {ability.why_not}' if ability.why_not else 'yes'}"
