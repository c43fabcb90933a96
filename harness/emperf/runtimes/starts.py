"""How an image starts, apart from any job: whether Python and its packages work in it, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from docker.errors import ImageNotFound

from emperf.core.errors import UserError
from emperf.runtimes.dockerio import engine
from emperf.runtimes.trainer import ARGUMENTS

RUNNER = 10001
_LIMIT_S, _STARTS, _NO_PYTHON = 300, 3, 127
_PLAIN = ("import torch", "from transformers import AutoModelForCausalLM, AutoTokenizer", "import peft")
_REFERENCE = (*_PLAIN, "import deepspeed", "import emperf.training.loop")


def bare_start_s(image: str) -> float:
    """Seconds that the image takes until a trainer in Python could begin: the least of three, since noise only adds.

    From the start of the container, host clock, to the end of a process that imports what a trainer has to: torch,
    transformers and peft; with the reference trainer as its entry point, what that one imports. Nothing of the image's
    own is run, so it cannot make itself slow. What it lacks is not imported; 0.0 where it has no python3.

    Raises UserError for an image that is not here; CellFailure(MACHINE).
    """
    with engine() as client:
        try:
            entry = client.inspect_image(image)["Config"].get("Entrypoint")
        except ImageNotFound:
            raise UserError(f"the image {image} is not on this machine", "Build it first.") from None
        imports = _REFERENCE if entry == ["python3", *ARGUMENTS] else _PLAIN
        program = "\n".join(f"try: {line}\nexcept Exception: pass" for line in imports)
        found = [run_python(client, image, program) for _ in range(_STARTS)]
    return min(0.0 if code == _NO_PYTHON else seconds for code, seconds, _ in found)


def what_fails(client: Any, image: str, modules: Sequence[str]) -> str:
    """Why these modules cannot be imported in the image, in a line; empty if they can."""
    code, _, log = run_python(client, image, "\n".join(f"import {name}" for name in modules) or "pass")
    lines = log.strip().splitlines() or [f"python3 ended with {code}"]
    return lines[-1][:300] if code else ""


def run_python(client: Any, image: str, program: str) -> tuple[int, float, str]:
    """(exit code, seconds from start to exit, output) of a Python program in a container of the image, without input,
    network or a place to write but /tmp. The code is 127 where there is no python3."""
    host = client.create_host_config(
        network_mode="none", read_only=True, cap_drop=["ALL"], security_opt=["no-new-privileges"], init=True,
        tmpfs={"/tmp": "mode=1777,nosuid,nodev,exec"},
    )  # fmt: skip
    made = client.create_container(
        image, entrypoint=["python3", "-c", program], host_config=host, user=f"{RUNNER}:{RUNNER}",
        environment={"HOME": "/tmp"}, healthcheck={"test": ["NONE"]}, labels={"emperf.run": "starts"},
    )["Id"]  # fmt: skip
    try:
        client.start(made)
        began = time.monotonic()
        code = int(client.wait(made, timeout=_LIMIT_S)["StatusCode"])
        seconds = time.monotonic() - began
        return code, seconds, client.logs(made).decode("utf-8", "replace")
    finally:
        client.remove_container(made, force=True, v=True)
