"""Spoil a card, and see that the error is one line with file and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from emperf.core.errors import UserError


def change(path: Path, **changes: Any) -> None:
    raw = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in raw.items() if value is not None}))


def one_line(error: pytest.ExceptionInfo[UserError], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert error.value.fix
    for word in words:
        assert word in text
