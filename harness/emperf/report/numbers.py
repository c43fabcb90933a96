"""Estimates of result.json as text: the value, then its 95 % interval in brackets. A dash: not defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emperf.scoring.estimate import Estimate, smallest_found

Json = dict[str, Any]
UNDEFINED = "\u2014"


def nats(estimate: Json | None) -> str:
    """Nats with their sign, three digits."""
    return _with_interval(estimate, lambda x: f"{_unsigned_zero(x, 3):+.3f}", "")


def percent(share: Json | None) -> str:
    """A share, 0 to 1, in %."""
    return _with_interval(share, lambda x: f"{_unsigned_zero(100 * x, 0):.0f}", " %")


def share(estimate: Json | None) -> str:
    """A share as it is, two digits."""
    return _with_interval(estimate, lambda x: f"{_unsigned_zero(x, 2):.2f}", "")


def times(ratio: Json) -> str:
    """A ratio to the baseline; alone where a single pair gives no interval."""
    return _with_interval(ratio, lambda x: f"{x:.2f}", "x")


def direction(estimate: Json | None) -> int | None:
    """1 if the interval lies above zero, -1 if below, 0 if it holds zero; None without an interval."""
    if estimate is None or estimate["low"] is None:
        return None
    return int(estimate["low"] > 0) - int(estimate["high"] < 0)


def smallest_of(estimate: Json) -> float | None:
    """The smallest effect that a run with this estimate's standard error finds in 80 % of runs."""
    return smallest_found(Estimate(**estimate))


def duration(seconds: float) -> str:
    """In words, with one or two units: 52 s, 6 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def printable(text: str) -> str:
    """One line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def beginning(text: str, limit: int) -> str:
    """At most `limit` printable characters of a text, of which more need not be seen."""
    line = printable(text)
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "\u2026"


def _with_interval(estimate: Json | None, form: Callable[[float], str], unit: str) -> str:
    if estimate is None or estimate["value"] is None:
        return UNDEFINED
    value = f"{form(estimate['value'])}{unit}"
    return (
        value if estimate["low"] is None else f"{value} [{form(estimate['low'])}, {form(estimate['high'])}]"
    )


def _unsigned_zero(x: float, digits: int) -> float:
    return round(x, digits) + 0.0
