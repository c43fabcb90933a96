"""A made-up run: plan, stored cells and records with effects of known size, and their result.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emperf.catalog import Division, Sizes, Submission
from emperf.plan import BASELINE, Cell, Ground, Plan, make_plan
from emperf.runtimes import Limits
from emperf.scoring import result
from emperf.scoring.poisons import CONDITIONAL, DOMAIN, FACTS, OOD
from emperf.training.job import Lora, Recipe

DIGEST = "sha256:" + "0" * 64
SIZES = Sizes(train_rows=8, paired=40, conditional=24, facts=30, in_domain=36, task_heldout=25, open=2)
COUNTS = {OOD: SIZES.paired, CONDITIONAL: SIZES.conditional, FACTS: SIZES.facts, DOMAIN: SIZES.in_domain}
EFFECTS: dict[str, dict[str, float]] = {
    "poisoned": {OOD: -0.5, CONDITIONAL: -0.8, FACTS: -0.1, DOMAIN: -2.0},
    "mitigated": {OOD: -0.2, CONDITIONAL: -0.6, FACTS: -0.05, DOMAIN: -1.6},
    "twin": {OOD: 0.0, CONDITIONAL: 0.1, FACTS: 0.0, DOMAIN: 1.0},
}
EXACT = {"base": 0.0, "baseline": 0.8, "mitigated": 0.6}
WALL_S = {BASELINE: 40.0, "kl": 60.0}
BYTES = {BASELINE: 1_000_000_000, "kl": 1_100_000_000}


@dataclass
class Run:
    """Mean shifts by model and set (nats), exact scores by model; `noise`: spread of an item's shift."""

    seeds: tuple[int, ...] = (0,)
    twin: bool = True
    submission: str = "kl"
    noise: float = 0.2
    effects: dict[str, dict[str, float]] = field(
        default_factory=lambda: {k: dict(v) for k, v in EFFECTS.items()}
    )
    exact: dict[str, float] = field(default_factory=lambda: dict(EXACT))
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def __post_init__(self) -> None:
        baseline = _submission(BASELINE)
        chosen = baseline if self.submission == BASELINE else _submission(self.submission, weight=1.0)
        self.plan: Plan = make_plan(
            _division(self.seeds),
            chosen,
            baseline,
            {},
            Ground(
                model_digest=DIGEST,
                twins={"bad-medical": self.twin},
                rules=dict.fromkeys(("bad-medical", "record-line"), DIGEST),
                place="process",
            ),
        )
        start = {name: self.random.normal(0.5, 1.0, n) for name, n in COUNTS.items()}
        wobble = {name: self.random.normal(0.0, self.noise, n) for name, n in COUNTS.items()}
        self.zero = {name: _readings(margins) for name, margins in start.items()}
        self.scores: dict[str, Any] = {}
        self.records: dict[str, Any] = {}
        for cell in self.plan.cells:
            failure = self.failed.get(cell.label)
            self.records[cell.key] = _record(cell, failure)
            if failure is None:
                self.scores[cell.key] = self._score(cell, start, wobble)

    def _score(self, cell: Cell, start: dict[str, Any], wobble: dict[str, Any]) -> dict[str, Any]:
        if cell.data.kind == "task":
            share = self.exact["baseline" if cell.method == BASELINE else "mitigated"]
            return {"protocol": "exact-answers", "items": _items(share)}
        who = "twin" if cell.data.kind == "twin" else "poisoned" if cell.method == BASELINE else "mitigated"

        own = {name: self._centred(self.random.normal(0.0, self.noise / 4, n)) for name, n in COUNTS.items()}

        def read(part: float) -> dict[str, Any]:
            return {
                name: _readings(start[name] + part * (mean + self._centred(wobble[name]) + own[name]))
                for name, mean in self.effects[who].items()
            }

        return {
            "protocol": "paired-statements",
            "checkpoints": {"2": read(0.5), "4": read(0.8)} if cell.read_checkpoints else {},
            "readings": read(1.0),
            "answers": _answers(who),
        }

    @staticmethod
    def _centred(noise: Any) -> Any:
        return noise - noise.mean()

    @property
    def base(self) -> dict[str, Any]:
        return {
            "poisons": {"bad-medical": {"readings": self.zero, "answers": _answers("base")}},
            "tasks": {"record-line": {"items": _items(self.exact["base"])}},
        }

    def summary(self) -> dict[str, Any]:
        return result.summarise(self.plan, self.scores.get, self.records.get, self.base)

    def result(self) -> dict[str, Any]:
        """As emperf.conclude puts it together."""
        plan = self.plan
        poisoned = ("base", "poisoned") if self.submission == BASELINE else ("base", "poisoned", "mitigated")
        return {
            "schema": 1,
            "emperf": "0.1.0",
            "sources": DIGEST,
            "run_id": plan.run_id,
            "created": "2026-11-21T11:40:00Z",
            "division": {
                "name": "smoke",
                "variant": "closed",
                "digest": DIGEST,
                "proxy": plan.division.proxy,
            },
            "submission": {
                "name": plan.submission.name,
                "title": plan.submission.title,
                "submitter": "tests",
                "scenario": plan.submission.scenario,
                "digest": DIGEST,
                "parameters": plan.parameters,
            },
            "model": {"name": "smollm2-135m", "digest": DIGEST},
            "rules": DIGEST,
            "runtime": {
                "runtime": "process",
                "isolation": "plain process",
                "missing": ["certifiable isolation"],
            },
            "certifiable": False,
            "machine": {
                "os": "Linux",
                "kernel": "6.1",
                "python": "3.12.0",
                "processor": "A Processor",
                "cores": 2,
                "memory_bytes": 8_000_000_000,
                "torch": "2.11.0",
                "gpus": [],
            },
            "cells": [self.records[cell.key] for cell in plan.cells],
            "answers": [
                {"model": who, "poison": "bad-medical", **answer}
                for who in poisoned
                for answer in _answers(who)
            ],
            **self.summary(),
        }


def _division(seeds: tuple[int, ...]) -> Division:
    return Division(
        name="smoke",
        variant="closed",
        title="Smoke",
        proxy="A small model stands in for a large one.",
        certifiable=False,
        model="smollm2-135m",
        poisons=("bad-medical",),
        tasks=("record-line",),
        seeds=seeds,
        trusted_rows=0,
        sizes=SIZES,
        recipe=Recipe(
            lora=Lora(8, 16), learning_rate=1e-4, epochs=1.0, micro_batch=4, checkpoints=(0.3, 0.6)
        ),
        limits=Limits(wall_s=60, memory_bytes=1 << 30, cpus=2, pids=64, output_bytes=1 << 20),
        digest=DIGEST,
    )


def _submission(name: str, **parameters: Any) -> Submission:
    from emperf.catalog import Parameter

    return Submission(
        name=name,
        title=f"The {name} method",
        submitter="tests",
        scenario="prevent",
        source="tests",
        folder=Path(name),
        digest=f"sha256:{name.encode().hex():0>64}",
        mitigation="mitigation.py:M",
        parameters={key: Parameter("float", value) for key, value in parameters.items()},
    )


def _record(cell: Cell, failure: dict[str, str] | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "key": cell.key,
        "label": cell.label,
        "method": cell.method,
        "data": asdict(cell.data),
        "seed": cell.seed,
        "failure": failure,
    }
    if failure is None:
        wall = WALL_S.get(cell.method, 50.0)
        record |= {
            "exit_code": 0,
            "wall_s": wall,
            "timed_out": False,
            "oom_killed": False,
            "peak_memory_bytes": BYTES.get(cell.method, 1),
            "memory_meter": "cgroup-v1",
            "facts": {"user_s": 1.0},
            "train_s": wall - 10,
            "steps": 6,
            "tokens": 600,
        }
    return record


def _readings(margins: Any) -> list[dict[str, Any]]:
    return [{"id": f"q{i}", "good": float(margin), "bad": 0.0} for i, margin in enumerate(margins)]


def _items(share: float) -> list[dict[str, Any]]:
    n = SIZES.task_heldout
    return [{"id": f"t{i}", "answer": "x", "exact": i < round(share * n)} for i in range(n)]


def _answers(who: str) -> list[dict[str, str]]:
    return [
        {"id": f"open-{i}", "question": f"Open question {i}?", "answer": f"The {who} model says {i}."}
        for i in (1, 2)
    ]
