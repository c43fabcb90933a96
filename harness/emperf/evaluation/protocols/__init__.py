"""Protocols: items in, readings out. Each is a module with a name, a unit, a direction, a definition, and `read`.

`read(lm, rows, settings)` gives one reading an item, in order, as plain JSON. `judged` alone reads no model: its items
are answers, and a judge reads them. Whether a reading is good or bad is said by `DIRECTION` and worked out by
`emperf.scoring`; nothing here scores. A new protocol is one file and a line below.
"""

from __future__ import annotations

import importlib
from typing import Any

MODULES = {
    name: f"emperf.evaluation.protocols.{name}" for name in ("paired", "exact", "sampled", "free", "judged")
}


def protocol(name: str) -> Any:
    """The module of a protocol."""
    return importlib.import_module(MODULES[name])
