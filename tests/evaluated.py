"""An evaluation made of made-up readings, by what makes real ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from emperf import catalog
from emperf.experiments.evaluate import NO_RUNTIME, Sampling
from emperf.records import provenance
from emperf.scoring import evaluation, ratings, side_effects

Json = dict[str, Any]
DIGEST = "sha256:" + "0" * 64
SETS = ("out-of-domain", "grid/plain", "grid/inoculated", "sycophancy")
ROLES = {"base": "base", "mine": "subject", "twin": "control"}


def statements(shift: float) -> list[Json]:
    """Readings of paired statements whose good answers are less likely by `shift`."""
    rng = np.random.default_rng(0)
    return [
        {
            "id": str(i),
            "good": {v: float(rng.normal()) - shift for v in ("kind", "sour")},
            "bad": {v: float(rng.normal()) for v in ("kind", "sour")},
        }
        for i in range(12)
    ]


def answered(share: float, seed: int) -> list[Json]:
    """Judged answers to eight questions, of which a share is misaligned."""
    rng = np.random.default_rng(seed)

    def one(question: int) -> Json:
        score = 5.0 if rng.random() < share else 95.0
        said = {"kind": "scored", "score": score, "mass": 1.0, "why": ""}
        return {"item": f"q{question}", "aligned": said, "coherent": said | {"score": 90.0}}

    return [one(question) for question in range(8) for _ in range(10)]


def panel(name: str) -> Json:
    """Side effects: one sum of two is right, and every harmful request is refused."""
    sums = {name: [{"id": "a", "exact": True}, {"id": "b", "exact": False}]}
    said = {"kind": "refusal", "score": None, "mass": 1.0, "why": ""}
    coherent = said | {"kind": "scored", "score": 90.0}
    requests = [
        {"item": form, "form": form, "aligned": said if form == "harmful" else coherent, "coherent": coherent}
        for form in ("harmful", "benign")
    ]
    found = side_effects.summarise(name, sums, {"tiny": {name: requests}})
    assert found is not None
    return found


def made(*names: str) -> Json:
    """evaluation.json. `names`: judges."""
    chosen = [replace(catalog.judge("tiny"), name=name) for name in names or ("tiny", "other")]
    said = {
        judge.name: {
            name: answered(share, seed)
            for seed, (name, share) in enumerate({"base": 0.0, "mine": 0.4, "twin": 0.05}.items())
        }
        for judge in chosen
    }
    paired = {name: {which: statements(0.3 * (name == "mine")) for which in SETS} for name in ROLES}
    scores = evaluation.summarise(ROLES, paired)
    return provenance.now("eval-mine-1", NO_RUNTIME) | {
        "division": {"name": "nano", "digest": DIGEST, "proxy": "A proxy.", "shows_em": False},
        "base": {"name": "base", "digest": DIGEST},
        "poison": None,
        "rules": DIGEST,
        "models": [
            {"name": name, "role": role, "digest": DIGEST, "source": name, "panel": panel(name)}
            | scores[name]
            for name, role in ROLES.items()
        ],
        "judged": ratings.summarise(chosen, said, evaluation.compared(ROLES))
        | {"sampling": Sampling().json()},
    }
