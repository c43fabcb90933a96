"""Plots as files: Vega-Lite charts, drawn without a browser or a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from emperf.core.files import disk_errors


def save(chart: Any, path: Path) -> None:
    """Write an altair chart whole or not at all, in the form that the ending names: svg, png, html (which needs no
    network either) or json. Raises UserError where the disk is full or read-only."""
    with disk_errors(path.parent):
        partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
        try:
            chart.save(partial, format=path.suffix.removeprefix("."), inline=path.suffix == ".html")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
