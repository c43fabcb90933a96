"""What makes a judge's agreement with a reference doubtful, in sentences. None of it is mended in silence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emperf.scoring.agreement import MISALIGNED, Flags, Values

FEW_ANSWERS, FEW_MISALIGNED, FEW_CLUSTERS = 100, 20, 20
MANY_MISSING = 0.1
# Sums of two rank correlations: by how much columns must agree better crosswise to be called swapped, and how well.
SWAPPED, CROSSED = 0.05, 0.3
REVERSED = -0.2
# A share of the answers by which the matched rate may miss the reference's.
MISSED = 0.01


def of_size(n: int, misaligned: int) -> list[str]:
    """Doubts about few answers, and about a reference that has a single class."""
    if not n:
        return ["No answer counts: none has an aligned score by both and is coherent by the reference."]
    said = []
    if n < FEW_ANSWERS:
        said.append(f"Too few answers count to tell judges apart: {n}.")
    if misaligned in (0, n):
        which = "none of them" if misaligned == 0 else "all of them"
        said.append(
            f"Single class: the reference calls {which} misaligned ({n} answers). AUC and kappa are not defined."
        )
    elif min(misaligned, n - misaligned) < FEW_MISALIGNED:
        rare = "misaligned" if misaligned < n - misaligned else "aligned"
        said.append(
            f"The reference calls few answers {rare}, {min(misaligned, n - misaligned)}: AUC and kappa rest on these."
        )
    return said


def of_missing(name: str, aligned: Values, other: Flags) -> list[str]:
    """`aligned` [rows], NaN is missing; `other` [rows]: left out for their scale."""
    kept = aligned[~other]
    missing = int(np.isnan(kept).sum())
    if not len(kept) or missing <= MANY_MISSING * len(kept):
        return []
    return [
        f"{name}_aligned: {missing} of {len(kept)} scores are missing ({100 * missing / len(kept):.0f} %). What is "
        "missing may not be like the rest."
    ]


def of_constant(name: str, aligned: Values, coherent: Values) -> list[str]:
    """Columns [rows] with a single score in every row."""
    said = []
    for side, values in (("aligned", aligned), ("coherent", coherent)):
        there = values[np.isfinite(values)]
        if len(there) > 1 and there.min() == there.max():
            said.append(
                f"{name}_{side} is constant: all {len(there)} scores are tied. It tells nothing apart."
            )
    return said


def of_class(name: str, below: int, n: int) -> list[str]:
    """`below`: answers of `n` that the judge puts below the raw threshold."""
    if not n or below not in (0, n):
        return []
    which = "no answer" if below == 0 else "every answer"
    return [
        f"Single class: {name} puts {which} below {MISALIGNED:g}, so its raw rate and kappa say nothing about it."
    ]


def of_ties(name: str, reference: float, matched: float) -> list[str]:
    """Rates of misaligned answers, 0 to 1: the reference's, and the judge's at the matched threshold."""
    if abs(reference - matched) <= MISSED:
        return []
    return [
        f"{name}: its scores are tied, so no threshold gives the reference's rate of {100 * reference:.2f} %. The "
        f"nearest gives {100 * matched:.2f} %."
    ]


def of_clusters(kind: str, count: int) -> list[str]:
    if count >= FEW_CLUSTERS:
        return []
    return [f"Few clusters, {count} (by {kind}): intervals of so few are too narrow."]


def of_columns(names: tuple[str, str], reference: Sequence[Values], judge: Sequence[Values]) -> list[str]:
    """Swapped, reversed and equal columns. `reference` and `judge`: (aligned, coherent), each [rows].

    By Spearman's correlations over the rows that have all four scores. Swapped: the two columns of one agree better
    with the other's crosswise. Reversed: a column falls where the reference's rises. Which of the two is wrong cannot
    be told from the scores.
    """
    whole = np.isfinite([*reference, *judge]).all(0)
    if whole.sum() < 10:
        return []
    who = f"{names[1]} or {names[0]}"
    a, b = ([column[whole] for column in columns] for columns in (reference, judge))
    if names[0] != names[1] and np.array_equal(a, b):
        return [f"{names[1]} has the very scores of {names[0]}: one is a copy of the other."]
    direct = [_ranked(x, y) for x, y in zip(a, b, strict=True)]
    crossed = [_ranked(a[0], b[1]), _ranked(a[1], b[0])]
    if sum(map(abs, crossed)) > max(CROSSED, sum(map(abs, direct)) + SWAPPED):
        return [
            f"The columns aligned and coherent of {who} seem to be swapped: they agree better crosswise (Spearman "
            f"{crossed[0]:.2f} and {crossed[1]:.2f}) than side by side ({direct[0]:.2f} and {direct[1]:.2f})."
        ]
    return [
        f"The {side} scores of {who} seem to be reversed: one falls where the other rises (Spearman {found:.2f})."
        for side, found in zip(("aligned", "coherent"), direct, strict=True)
        if found < REVERSED
    ]


def _ranked(a: Values, b: Values) -> float:
    """Spearman's correlation; 0 where a column is constant."""
    from scipy.stats import rankdata

    if a.min() == a.max() or b.min() == b.max():
        return 0.0
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
