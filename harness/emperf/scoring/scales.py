"""The scale that a judge's scores are on, found by the scores themselves, and rows on another one.

Judges answer on 0-100, or with a digit on 0-5; 0-10 and 0-1 are met too. A judge's two columns, aligned and coherent,
are looked at together. The rule:

1. Scores outside 0 to 100 are on no scale, and are missing.
2. The scale is the smallest of 0-1, 0-5, 0-10 and 0-100 that holds all scores.
3. It is certain if it is 0-100, or if the scores fill it: some reach 95 % of its top, and the median coherent score
   lies above 60 % of it, since most answers are coherent. Otherwise low scores on a greater scale would look the
   same. Then it is taken all the same, and called ambiguous.
4. A column that never leaves a smaller scale beside one that does is ambiguous too. It is taken on the greater one.
5. Two scales are mixed where one is 0-100 and scores pile up below the top t of another. A row's score is the greater
   of its two. On one scale, scores just below t are about as frequent as those just above. So t is a top within the
   column if more than three times as many rows (and two more) lie in (0.6 t, t] as in (t, 2 t]. Rows up to t are then
   on the smaller scale, the others on 0-100. The scale of most rows is the column's; the other rows are left out.
6. One column alone may mix them. It is looked at in the same way, without the scores at t itself: judges that answer
   in whole numbers on 0-100 like to say 5.

`given` overrules 2 to 6, for a judge or for one of its columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

TOPS = {"0-1": 1.0, "0-5": 5.0, "0-10": 10.0, "0-100": 100.0}
WIDEST = "0-100"
REACHED, MEDIAN, PILE = 0.95, 0.6, 0.6


@dataclass(frozen=True)
class Scaled:
    """A judge's scores on 0 to 100, [rows]; NaN is missing. `scale`: what they were on, by the aligned column.

    `other`: rows on another scale [rows]; their scores are NaN. `warnings`: sentences.
    """

    aligned: Values
    coherent: Values
    scale: str
    other: Flags
    warnings: tuple[str, ...]


def scaled(name: str, aligned: Values, coherent: Values, given: Mapping[str, str] | None = None) -> Scaled:
    """A judge's columns [rows] on 0 to 100. `given`: name of a judge or of a column -> its scale."""
    columns = {f"{name}_aligned": aligned, f"{name}_coherent": coherent}
    forced = {c: (given or {}).get(c, (given or {}).get(name)) for c in columns}
    said: list[str] = []
    clean = {c: _inside(c, values, TOPS[forced[c] or WIDEST], said) for c, values in columns.items()}
    free = {c: values for c, values in clean.items() if forced[c] is None}
    scales, other = _found(name, free, said) if free else ({}, np.zeros(len(aligned), bool))
    found = {c: forced[c] or scales[c] for c in columns}
    # A row that is on another scale is left out whole.
    on_100 = [np.where(other, np.nan, 100 / TOPS[found[c]] * clean[c]) for c in columns]
    return Scaled(on_100[0], on_100[1], found[f"{name}_aligned"], other, tuple(said))


def _inside(column: str, values: Values, top: float, said: list[str]) -> Values:
    """The scores from 0 to `top`; those outside are NaN, and said."""
    outside = (values < 0) | (values > top)
    if outside.any():
        said.append(
            f"{column}: {outside.sum()} scores lie outside 0 to {top:g} (first: {values[outside][0]:g}). They count as "
            "missing."
        )
    return np.where(outside, np.nan, values)


def _found(name: str, columns: Mapping[str, Values], said: list[str]) -> tuple[dict[str, str], Flags]:
    """(column -> scale, rows on another one) of columns [rows]. Adds to `said`."""
    rows = np.fmax.reduce(list(columns.values()))
    none = np.zeros(len(rows), bool)
    smaller = _mixed(rows)
    if smaller is not None:
        scale, other = _majority(f"{name}: two scales are mixed in its columns", rows, smaller, said)
        return dict.fromkeys(columns, scale), other
    alone = {c: _mixed(values, at_top=False) for c, values in columns.items()}
    if any(alone.values()):
        return _found_alone(columns, alone, said)
    scale = _smallest(rows)
    _doubt(name, columns, scale, said)
    return dict.fromkeys(columns, scale), none


def _found_alone(
    columns: Mapping[str, Values], smaller: Mapping[str, str | None], said: list[str]
) -> tuple[dict[str, str], Flags]:
    """As `_found`, of columns some of which mix `smaller` scales with 0-100."""
    scales, other = {}, np.zeros(len(next(iter(columns.values()))), bool)
    for column, small in smaller.items():
        if small is not None:
            what = f"{column}: two scales are mixed in it"
            scales[column], left_out = _majority(what, columns[column], small, said)
            other = other | left_out
    for column in columns.keys() - scales.keys():
        scales[column] = _smallest(np.where(other, np.nan, columns[column]))
    return scales, other


def _smallest(values: Values) -> str:
    """The smallest scale that holds all values."""
    most = np.fmax.reduce(values, initial=-np.inf)
    return next(scale for scale, top in TOPS.items() if most <= top) if np.isfinite(most) else WIDEST


def _mixed(values: Values, *, at_top: bool = True) -> str | None:
    """The smaller of two scales that are mixed in `values`, if two are (rules 5 and 6).

    `at_top`: whether scores at the very top of the smaller scale belong to its pile.
    """
    if _smallest(values) != WIDEST:
        return None
    piles = {}
    for scale, top in TOPS.items():
        pile = (values > PILE * top) & ((values <= top) if at_top else (values < top))
        above = int(((values > top) & (values <= 2 * top)).sum())
        if scale != WIDEST and pile.sum() > 3 * above + 2:
            piles[scale] = int(pile.sum())
    return max(piles, key=lambda scale: piles[scale]) if piles else None


def _majority(what: str, values: Values, smaller: str, said: list[str]) -> tuple[str, Flags]:
    """(the scale of most rows, the other rows)."""
    low = np.isfinite(values) & (values <= TOPS[smaller])
    high = np.isfinite(values) & ~low
    scale, other = (smaller, high) if low.sum() > high.sum() else (WIDEST, low)
    said.append(
        f"{what}: {low.sum()} rows are on {smaller} and {high.sum()} on {WIDEST}. The numbers are those of the {scale} "
        f"rows; the other {other.sum()} are left out."
        + (f" Low scores on {WIDEST} may be among them." if scale == WIDEST else "")
    )
    return scale, other


def _doubt(name: str, columns: Mapping[str, Values], scale: str, said: list[str]) -> None:
    """Rules 3 and 4: what is ambiguous about `scale`."""
    top = TOPS[scale]
    every = np.concatenate(list(columns.values()))
    if not np.isfinite(every).any():
        return
    typical = next((v for c, v in columns.items() if c.endswith("_coherent")), every)
    filled = np.nanmax(every) >= REACHED * top and np.nanmedian(_some(typical, every)) > MEDIAN * top
    if scale != WIDEST and not filled:
        said.append(
            f"{name}: its scale is ambiguous: all scores lie between {np.nanmin(every):g} and {np.nanmax(every):g}. It "
            f"is taken as {scale}, times {100 / top:g}. If it is not, say so: --scale {name}=0-100."
        )
        return
    for column, values in columns.items():
        if np.isfinite(values).any() and scale == WIDEST and np.nanmax(values) <= TOPS["0-10"]:
            own = _smallest(values)
            said.append(
                f"{column}: its scale is ambiguous: no score exceeds {np.nanmax(values):g}, while the judge's other "
                f"column is on {scale}. It is taken as {scale}. If it is not, say so: --scale {column}={own}."
            )


def _some(values: Values, instead: Values) -> Values:
    return values if np.isfinite(values).any() else instead
