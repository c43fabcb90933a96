"""Where a record comes from: which version and sources made it, when, how containers were run, on which machine."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from emperf.core import digests
from emperf.core.sources import PACKAGE
from emperf.core.version import VERSION
from emperf.records.parts import LEFT_OUT, Count, Digest, Part

SCHEMA = 1
KEPT = ("created", "sources", "runtime", "machine")

Json = dict[str, Any]


class Machine(Part):
    """The system description. It has no host name."""

    os: str = Field(description="Operating system.")
    kernel: str = Field(description="The kernel's release.")
    python: str = Field(description="Version of Python.")
    processor: str = Field(description="The processor's model. Empty where the system does not say.")
    cores: Count | None = Field(description="Physical cores. Null where the system does not say.")
    memory_bytes: Count = Field(description="Memory, bytes.")
    torch: str = Field(description="Version of torch.")
    gpus: tuple[str, ...] = Field(description="The GPUs' names.")


class Image(Part):
    """An image that jobs ran from."""

    id: str = Field(description="The engine's id of the image.")
    digests: tuple[str, ...] = Field(description="Its digests in registries. Empty if it was built here.")
    start_s: float = Field(
        default=LEFT_OUT,
        ge=0,
        description="Seconds of a bare start: Python and a trainer's libraries, without a job. 0 without Python.",
    )


class RuntimeFacts(Part):
    """How containers were run. The first three facts are of every runtime."""

    runtime: Literal["docker", "process", "none"] = Field(
        description="docker or process; none where nothing was trained."
    )
    isolation: str = Field(description="The walls in force, in words.")
    missing: tuple[str, ...] = Field(description="What this runtime does not guarantee, in words.")
    kernel: str = Field(default=LEFT_OUT, description="Release of the kernel that containers run on.")
    limits: Literal["cgroup", "rlimits"] = Field(default=LEFT_OUT, description="process: what holds limits.")
    engine: str = Field(default=LEFT_OUT, description="docker: version of the engine.")
    api: str = Field(default=LEFT_OUT, description="docker: version of the engine's API.")
    cgroup_version: str = Field(default=LEFT_OUT, description="docker: version of control groups.")
    cgroup_driver: str = Field(default=LEFT_OUT, description="docker: who makes control groups.")
    storage_driver: str = Field(default=LEFT_OUT, description="docker: where images and containers lie.")
    images: dict[str, Image] = Field(default=LEFT_OUT, description="docker: each image used, by its name.")


class Provenance(Part):
    """Where a record comes from. Every record begins with these fields."""

    model_config = ConfigDict(title="EMPerf provenance")

    # A Literal would take true for 1.
    schema_: int = Field(alias="schema", ge=SCHEMA, le=SCHEMA, description="Version of the records' schemas.")
    emperf: str = Field(description="Version of the harness.")
    sources: Digest = Field(description="Digest of every file of the harness's package.")
    run_id: str = Field(
        description="Names what was run: the kind of experiment or the division, the submission, and the first digits "
        "of a digest over what decides the cells. In a store it is the name of the folder."
    )
    created: str = Field(
        pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
        description="When the record was put together, UTC.",
    )
    runtime: RuntimeFacts = Field(description="How containers were run. Facts differ by runtime.")
    machine: Machine = Field(description="Where it was run.")


FIELDS = tuple(field.alias or name for name, field in Provenance.model_fields.items())


def now(run_id: str, runtime: Json, machine: Json | None = None) -> Json:
    """The provenance of a record that is made here and now. `runtime`: as `Runtime.describe` says.

    `machine`: where the cells were trained, if it was not here.
    """
    return {
        "schema": SCHEMA,
        "emperf": VERSION,
        "sources": sources(),
        "run_id": run_id,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "runtime": runtime,
        "machine": this_machine() if machine is None else machine,
    }


def kept(fresh: Json, before: Any) -> Json:
    """`fresh` with the date, sources, runtime and machine of the record that lay there, for a run that was finished.

    `before`: that record. `fresh` as it is where there is none, or where it has another version's provenance.
    """
    try:
        Provenance.model_validate_json(json.dumps({name: before[name] for name in FIELDS}))
    except (TypeError, KeyError, ValidationError):
        return fresh
    return fresh | {name: before[name] for name in KEPT}


def sources() -> str:
    """Digest of the harness itself, every file of the package: its version says too little between releases."""
    return digests.of_folder(PACKAGE)


def this_machine() -> Json:
    """The system description of this machine, as `Machine` has it."""
    import psutil
    import torch

    return {
        "os": platform.system(), "kernel": platform.release(), "python": platform.python_version(),
        "processor": processor(), "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total, "torch": torch.__version__,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }  # fmt: skip


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
