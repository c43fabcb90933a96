"""EMPerf: a fixed-rules benchmark of mitigations against emergent misalignment.

The Python API (docs/python-api.md) is fetched when it is first used: a container, which holds the trainer alone, needs
nothing else of the package.
"""

import importlib
from typing import Any

API = ("Record", "UserError", "compare", "evaluate", "load", "rescore", "run")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module(f"{__name__}.core.version").VERSION
    if name in API:
        return getattr(importlib.import_module(f"{__name__}.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
