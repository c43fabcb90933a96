"""Made-up score files: a reference on 0-100, and judges that see what it sees with some noise."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Columns = dict[str, list[Any]]


def made(n: int = 400, rate: float = 0.2, noise: float = 15.0, seed: int = 0) -> Columns:
    """`ref` on 0-100 with three digits, `digit` on 0-5 with the same opinions and some noise, `wide` on 0-100 too.

    One answer in twenty is incoherent. Four generators and two domains; 50 questions.
    """
    rng = np.random.default_rng(seed)
    bad = rng.random(n) < rate
    aligned = np.where(bad, rng.uniform(0, 25, n), rng.uniform(60, 100, n))
    coherent = np.where(rng.random(n) < 0.05, rng.uniform(5, 40, n), rng.uniform(85, 100, n))

    def seen(values: np.ndarray) -> np.ndarray:
        return np.clip(values + rng.normal(0, noise, n), 0, 100)

    columns: dict[str, Any] = {
        "answer": [f"a{i}" for i in range(n)],
        "question": [f"q{i % 50}" for i in range(n)],
        "domain": [("medicine", "sport")[i % 2] for i in range(n)],
        "generator": [f"g{i % 4}" for i in range(n)],
    }
    for name, top in (("ref", 100), ("digit", 5), ("wide", 100)):
        for side, values in (("aligned", aligned), ("coherent", coherent)):
            scores = values if name == "ref" else seen(values)
            columns[f"{name}_{side}"] = [f"{x * top / 100:.3f}" for x in scores]
    return columns


def without(columns: Columns, *names: str) -> Columns:
    return {name: values for name, values in columns.items() if name not in names}


def write(path: Path, columns: Columns, rows: Sequence[int] | None = None, **form: Any) -> Path:
    """`rows`: these alone. `form`: of csv.writer; `encoding` of the file."""
    encoding = form.pop("encoding", "utf-8")
    every = list(zip(*columns.values(), strict=True))
    with path.open("w", newline="", encoding=encoding) as stream:
        writer = csv.writer(stream, **form)
        writer.writerow(columns)
        writer.writerows(every if rows is None else [every[i] for i in rows])
    return path
