"""A judge beside a reference, from their scores of the same answers: the numbers, and what is doubtful about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from emperf.catalog.scores import Scores
from emperf.scoring import agreement, doubts
from emperf.scoring.agreement import COHERENT, Flags, Labels, Ladder
from emperf.scoring.resample import (
    THRESHOLD,
    Answers,
    draws,
    held_out_thresholds,
    interval,
    ladder_of,
    numbers,
    rounded,
)  # fmt: skip
from emperf.scoring.scales import Scaled, scaled

Json = dict[str, Any]
# Points of a curve.
POINTS = 201


@dataclass(frozen=True)
class Pair:
    """A reference and a judge, their scores on 0 to 100, and which rows count: `kept` [rows]."""

    table: Scores
    names: tuple[str, str]
    reference: Scaled
    judge: Scaled

    @property
    def excluded(self) -> dict[str, Flags]:
        """Why a row does not count, [rows] each. A row has one reason, the first that applies."""
        other = self.reference.other | self.judge.other
        needed = [self.reference.aligned, self.reference.coherent, self.judge.aligned]
        missing = ~other & ~np.isfinite(needed).all(0)
        incoherent = ~other & ~missing & ~(self.reference.coherent > COHERENT)
        return {"missing": missing, "incoherent": incoherent, "other_scale": other}

    @property
    def missing_by(self) -> dict[str, int]:
        """Rows without the scores that are needed of each; a row may lack both."""
        same = ~self.excluded["other_scale"]
        by_reference = np.isnan([self.reference.aligned, self.reference.coherent]).any(0)
        return {
            "reference": int((same & by_reference).sum()),
            "judge": int((same & np.isnan(self.judge.aligned)).sum()),
        }

    @property
    def kept(self) -> Flags:
        return np.asarray(~np.logical_or.reduce(list(self.excluded.values())))

    @property
    def clusters(self) -> tuple[str, Labels | None]:
        """What is drawn as one, and its index [rows]: a question's answers, or an answer's rows if it has several."""
        questions, ids = (_indices(self.table, label) for label in ("question", "answer"))
        if questions is not None:
            return "question", questions
        if ids is not None and len(np.unique(ids)) < len(ids):
            return "answer", ids
        return "none", None

    def answers(self) -> Answers:
        every = Answers(
            self.judge.aligned,
            self.reference.aligned,
            _indices(self.table, "generator"),
            self.clusters[1],
        )
        return every.part(self.kept)


def pair(table: Scores, reference: str, judge: str, scales: Mapping[str, str] | None = None) -> Pair:
    """`scales`: judge or column -> its scale, where the scores do not tell it."""
    first, second = (
        scaled(name, table.columns[f"{name}_aligned"], table.columns[f"{name}_coherent"], scales)
        for name in (reference, judge)
    )
    return Pair(table, (reference, judge), first, second)


def validate(found: Pair) -> Json:
    """How well the judge agrees with the reference; docs/judges.md says what each key is.

    A number that is not defined is None, never 0.
    """
    answers = found.answers()
    out: Json = {
        "judge": found.names[1],
        "reference": found.names[0],
        "rows": found.table.rows,
        "n": answers.n,
    }
    out |= {reason: int(rows.sum()) for reason, rows in found.excluded.items()}
    out["missing_by"] = found.missing_by
    out |= numbers(answers)
    out |= {"scale": found.judge.scale, "scale_reference": found.reference.scale}
    out |= {"clustered_by": found.clusters[0], "coherence": _coherence(found)}
    for label in ("domain", "generator"):
        out[f"by_{label}"] = _groups(found, label, answers, out[THRESHOLD])
    out["warnings"] = _warnings(found, answers, out)
    return out


def curves(answers: Answers) -> dict[str, list[Json]]:
    """What a plot shows. `roc`: shares of aligned (x) and misaligned (y) answers below each threshold. `kappa`: kappa
    and the judge's rate for thresholds of 0 to 100. Both are empty if the reference has a single class."""
    if not answers.n or answers.single_class:
        return {"roc": [], "kappa": []}
    scores = np.unique(answers.judge)
    edges = np.append(scores, np.nextafter(scores[-1], np.inf))
    few = edges[np.unique(np.linspace(0, len(edges) - 1, POINTS).astype(int))]
    every, marked = agreement.flagged(_repeated(answers, len(few)), few)
    misaligned = float(answers.misaligned.sum())
    roc = [
        {"x": rounded((a - m) / (answers.n - misaligned)), "y": rounded(m / misaligned)}
        for a, m in zip(every, marked, strict=True)
    ]
    steps = np.linspace(0, 100, POINTS)
    ladder = _repeated(answers, POINTS)
    kappas, rates = agreement.kappa_at(ladder, steps), agreement.flagged(ladder, steps)[0] / answers.n
    columns = zip(steps, kappas, rates, strict=True)
    return {
        "roc": roc,
        "kappa": [{"threshold": float(t), "kappa": rounded(k), "rate": rounded(r)} for t, k, r in columns],
    }


def _repeated(answers: Answers, times: int) -> Ladder:
    return ladder_of(answers, np.ones((times, answers.n)))


def _indices(table: Scores, label: str) -> Labels | None:
    """A label as indices [rows]. An answer's id counts within the other labels."""
    if label not in table.labels:
        return None
    rows = zip(*table.labels.values(), strict=True) if label == "answer" else table.labels[label]
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(row, len(seen)) for row in rows])


def _coherence(found: Pair) -> Json:
    """Correlations of the two coherent scores over all rows that have both, with intervals.

    Spearman's is Pearson's of the ranks; the draws keep the ranks of all rows.
    """
    whole = np.isfinite([found.reference.coherent, found.judge.coherent]).all(0)
    a, b = found.reference.coherent[whole], found.judge.coherent[whole]
    out: Json = {
        "n": len(a), "pearson": None, "spearman": None, "intervals": {"pearson": None, "spearman": None},
    }  # fmt: skip
    if len(a) < 3:
        return out
    clusters = found.clusters[1]
    weights = list(draws(len(a), None if clusters is None else clusters[whole]))
    for name, (x, y) in {"pearson": (a, b), "spearman": (rankdata(a), rankdata(b))}.items():
        drawn = np.concatenate([agreement.correlation(x, y, chunk) for chunk in weights])
        out[name], out["intervals"][name] = rounded(drawn[0]), interval(drawn)
    return out


def _groups(found: Pair, label: str, answers: Answers, threshold: float | None) -> dict[str, Json]:
    """The numbers of each domain or generator, at the thresholds of all answers; {} without such a column."""
    if label not in found.table.labels:
        return {}
    names = np.array(found.table.labels[label])
    held_out = None if threshold is None else held_out_thresholds(answers)
    out = {}
    for name in dict.fromkeys(found.table.labels[label]):
        rows = names == name
        inside = rows[found.kept]
        part = numbers(answers.part(inside), threshold, held_out[inside] if held_out is not None else None)
        counts = {reason: int((rows & excluded).sum()) for reason, excluded in found.excluded.items()}
        out[name] = {"n": int(inside.sum()), **counts, **part}
    return out


def _warnings(found: Pair, answers: Answers, out: Json) -> list[str]:
    """Every fault of the files and of these columns, then the doubts about the numbers."""
    reference, judge = found.names
    said = list(found.table.faults[""])
    for name, one in ((reference, found.reference), (judge, found.judge)):
        said += found.table.faults[name]
        said += one.warnings
        said += doubts.of_constant(name, one.aligned, one.coherent)
        said += doubts.of_missing(name, one.aligned, one.other)
    said += doubts.of_columns(
        found.names,
        (found.reference.aligned, found.reference.coherent),
        (found.judge.aligned, found.judge.coherent),
    )
    said += doubts.of_size(answers.n, int(answers.misaligned.sum()))
    said += doubts.of_class(judge, int((answers.judge < agreement.MISALIGNED).sum()), answers.n)
    if out[THRESHOLD] is not None:
        said += doubts.of_ties(judge, out["em_reference"], out["em_judge_calibrated"])
    if answers.n and answers.clusters is not None:
        said += doubts.of_clusters(found.clusters[0], len(np.unique(answers.clusters)))
    return list(dict.fromkeys(said))
