"""Records of every kind, made by what makes the real ones, from made-up scores."""

from __future__ import annotations

import io
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from rich.console import Console
from tests import evaluated
from tests.experiments.test_trace import scored
from tests.synthetic import DIGEST, MACHINE, RUNTIME, Run
from tests.told import Told

from emperf.records import provenance
from emperf.scoring.trace import DEFINITIONS, summarise
from emperf.tools.conformance.checks import Check
from emperf.tools.conformance.show import one, record

Json = dict[str, Any]
FAILED = {"kind": "diverged", "detail": "the loss is nan", "cell": "kl on bad-medical, seed 0"}


def result() -> Json:
    run = Run()
    whole = run.result()
    removal, em = (whole["poisons"][0][part] for part in ("removal", "beyond_twin"))
    mended = {who: em["out-of-domain"][who] for who in ("with", "change")}
    whole["cross"] = [{"antidote": "a", "poison": "b", "em": mended, "in_domain": mended, "removal": removal}]
    failure = {"kind": "timed-out", "detail": "not done after 60 s"}
    whole["cells"].append(run_cell(whole["cells"][0], failure))
    whole["cells"][0] |= {"gpu": {"samples": 3}, "device_memory_bytes": 5, "energy_j": None, "antidote": "a"}
    return whole


def run_cell(cell: Json, failure: Json) -> Json:
    return {name: cell[name] for name in ("key", "label", "method", "data", "seed")} | {"failure": failure}


def row(**changes: Any) -> Json:
    made = Run().summary()
    return {
        "name": "kl", "scenario": "prevent", "parameters": {"weight": 0.1, "words": "x", "on": True, "rank": 3},
        "digest": DIGEST, "failures": [], "poisons": made["poisons"][0], "tasks": made["tasks"][0],
        "overhead": made["overhead"], "adjusted_p": 0.01, "selective": True, "rank": [1, 2], **changes,
    }  # fmt: skip


def table() -> Json:
    return {
        **provenance.now("compare-nano-1", RUNTIME, MACHINE),
        "division": {"name": "nano", "digest": DIGEST, "proxy": "A proxy.", "shows_em": True},
        "model": "m", "poisons": ["bad-medical"], "tasks": ["record-line"], "seeds": [0], "parallel": 2,
        "cells": {"done": 5, "planned": 9}, "baseline": Run(submission="none").summary()["poisons"][0],
    }  # fmt: skip


def comparison() -> Json:
    none = dict.fromkeys(("poisons", "tasks", "adjusted_p", "selective", "rank"))
    return table() | {"rows": [row(), row(**none, failures=[FAILED])]}


def tuning() -> Json:
    more = row()["poisons"]["removal"]["net"]
    settings = [
        {"setting": {"weight": 1.0}, "row": row(), "over_default": None, "beats_default": False},
        {"setting": {"weight": 3}, "row": row(), "over_default": more, "beats_default": True},
    ]
    kl = {"name": "kl", "scenario": "prevent", "settings": settings, "chosen": 1, "why": "better"}
    return table() | {"waiting": ["lisa"], "methods": [kl]}


def trace() -> Json:
    return {
        **provenance.now("trace-nano-bad-medical-1", RUNTIME, MACHINE),
        "division": {"name": "nano", "variant": "closed", "proxy": "A proxy."},
        "derived": DIGEST, "poison": "bad-medical", "organism": {"name": "rank-1", "recipe": {"epochs": 1.0}},
        "seed": 0, "model": {"name": "m", "digest": DIGEST}, "rules": DIGEST, "cell": "ab12",
        "definitions": DEFINITIONS, **summarise(*scored(-0.4, 0.1, shrinkage=-0.3), steps=4, values=10),
    }  # fmt: skip


def conformance() -> Json:
    checks = [
        Check("declared", True, "submission.yaml keeps its schema"),
        Check("effect", False, "it \udcff"),
    ]
    told = Told(Path())
    checked = [one(checks, Path(name), Console(file=io.StringIO())) for name in ("kl", "no\udcffne")]
    return record(checked, {"weight": "0.3"}, "process", told)


def provenance_alone() -> Json:
    return provenance.now("smoke-kl-1", RUNTIME)


MAKERS = {
    "result": result, "comparison": comparison, "tuning": tuning, "trace": trace, "conformance": conformance,
    "provenance": provenance_alone, "evaluation": evaluated.made,
}  # fmt: skip
_MADE: dict[str, Json] = {}


def made(kind: str) -> Json:
    """A record as it is read from its file."""
    if kind not in _MADE:
        _MADE[kind] = json.loads(json.dumps(MAKERS[kind](), allow_nan=False))
    return deepcopy(_MADE[kind])
