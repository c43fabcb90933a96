"""A made-up run: plan, stored cells and records with effects of known size, and their result.json."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emperf.catalog import Division, SeedSpread, Sizes, Submission
from emperf.catalog.sets import CONDITIONAL, DOMAIN, FACTS, OOD
from emperf.core import digests
from emperf.core.limits import Limits
from emperf.scoring import result
from emperf.training.job import Lora, Recipe
from emperf.work.plan import BASELINE, Cell, Data, Ground, Plan, make_plan

DIGEST = "sha256:" + "0" * 64
SIZES = Sizes(train_rows=8, crossed=40, conditional=24, facts=30, in_domain=36, task_heldout=25, open=2)
COUNTS = {OOD: SIZES.crossed, CONDITIONAL: SIZES.conditional, FACTS: SIZES.facts, DOMAIN: SIZES.in_domain}
# Act shifts at base margin zero. d_0 = -0.5, d_m = -0.25, l_0 = -3, l_m = -2.4: left 0.5, kept 0.8, removal 0.3.
EFFECTS: dict[str, dict[str, float]] = {
    "poisoned": {OOD: -0.5, CONDITIONAL: -0.8, FACTS: -0.1, DOMAIN: -2.0},
    "twin": {OOD: 0.0, CONDITIONAL: 0.1, FACTS: 0.0, DOMAIN: 1.0},
    "mitigated": {OOD: -0.2, CONDITIONAL: -0.6, FACTS: -0.05, DOMAIN: -1.6},
    "mitigated_twin": {OOD: 0.05, CONDITIONAL: 0.1, FACTS: 0.0, DOMAIN: 0.8},
    "kind": {OOD: 0.02, FACTS: 0.0},
    "sour": {OOD: -0.05, FACTS: 0.0},
}
VOICES = {"poisoned": -0.3, "twin": 0.1, "mitigated": -0.2, "mitigated_twin": 0.1, "kind": 0.4, "sour": -0.4}
MARGIN, SHRINKAGE = 0.5, -0.4
EXACT = {"base": 0.0, "baseline": 0.8, "mitigated": 0.6}
WALL_S = {BASELINE: 40.0, "kl": 60.0}
BYTES = {BASELINE: 1_000_000_000, "kl": 1_100_000_000}
RUNTIME = {"runtime": "process", "isolation": "plain process", "missing": ["certifiable isolation"]}
MACHINE: dict[str, Any] = {
    "os": "Linux", "kernel": "6.1", "python": "3.12.0", "processor": "A Processor", "cores": 2,
    "memory_bytes": 8_000_000_000, "torch": "2.11.0", "gpus": [],
}  # fmt: skip


@dataclass
class Run:
    """`effects`: act shift at base margin zero by model and set, nats; `voices`: voice shift by model; `shrinkage`:
    nats of act shift a nat of base margin, the mean of which is MARGIN; `noise`: spread of an item's shift; `exact`:
    share of exact answers by model."""

    seeds: tuple[int, ...] = (0,)
    twin: bool = True
    submission: str = "kl"
    controls: tuple[str, ...] = ("kind", "sour")
    spread: SeedSpread | None = None
    noise: float = 0.2
    shrinkage: float = SHRINKAGE
    effects: dict[str, dict[str, float]] = field(default_factory=lambda: deepcopy(EFFECTS))
    voices: dict[str, float] = field(default_factory=lambda: dict(VOICES))
    exact: dict[str, float] = field(default_factory=lambda: dict(EXACT))
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def __post_init__(self) -> None:
        baseline = _submission(BASELINE)
        chosen = baseline if self.submission == BASELINE else _submission(self.submission, weight=1.0)
        data = [Data("poison", "bad-medical"), Data("twin", "bad-medical"), Data("task", "record-line")]
        data += [Data("control", name) for name in self.controls]
        self.plan: Plan = make_plan(
            _division(self.seeds, self.controls, self.spread),
            chosen,
            baseline,
            {},
            Ground(
                model_digest=DIGEST,
                twins={"bad-medical": self.twin},
                rows={one: digests.of_json(asdict(one)) for one in data},
                place="process",
                trusted=lambda asked, antidote: DIGEST,
            ),
        )
        self.start = {name: _centred(self.random.normal(0.0, 1.0, n)) + MARGIN for name, n in COUNTS.items()}
        self.wobble = {name: self.random.normal(0.0, self.noise, n) for name, n in COUNTS.items()}
        self.zero = {name: readings(name, margins, 0.2) for name, margins in self.start.items()}
        self.scores: dict[str, Any] = {}
        self.records: dict[str, Any] = {}
        for cell in self.plan.cells:
            failure = self.failed.get(cell.label)
            self.records[cell.key] = _record(cell, failure)
            if failure is None:
                self.scores[cell.key] = self._score(cell)

    def _score(self, cell: Cell) -> dict[str, Any]:
        if cell.data.kind == "task":
            share = self.exact["baseline" if cell.method == BASELINE else "mitigated"]
            return {"protocol": "exact-answers", "items": _items(share)}
        who = _who(cell)
        own = {name: self.random.normal(0.0, self.noise / 4, n) for name, n in COUNTS.items()}

        def read(part: float, names: Any) -> dict[str, Any]:
            found = {}
            for name in names:
                noise = free_of(self.start[name], self.wobble[name] + own[name])
                shift = self.effects[who][name] + self.shrinkage * self.start[name] + noise
                found[name] = readings(name, self.start[name] + part * shift, 0.2 + part * self.voices[who])
            return found

        checkpoints = (
            {"2": read(0.5, (OOD, DOMAIN)), "4": read(0.8, (OOD, DOMAIN))} if cell.read_checkpoints else {}
        )
        return {
            "protocol": "crossed-statements",
            "checkpoints": checkpoints,
            "readings": read(1.0, self.effects[who]),
            "answers": _answers(who),
        }

    @property
    def base(self) -> dict[str, Any]:
        return {
            "poisons": {"bad-medical": {"readings": self.zero, "answers": _answers("base")}},
            "tasks": {"record-line": {"items": _items(self.exact["base"])}},
        }

    def summary(self) -> dict[str, Any]:
        return result.summarise(self.plan, self.scores.get, self.records.get, self.base)

    def result(self) -> dict[str, Any]:
        """As emperf.experiments.conclude puts it together."""
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
                "shows_em": plan.division.shows_em,
                "seed_spread": plan.division.seed_spread is not None,
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
            "runtime": RUNTIME,
            "certifiable": False,
            "users_cards": [],
            "machine": MACHINE,
            "cells": [self.records[cell.key] for cell in plan.cells],
            "answers": [
                {"model": who, "poison": "bad-medical", **answer}
                for who in poisoned
                for answer in _answers(who)
            ],
            **self.summary(),
        }


def _who(cell: Cell) -> str:
    if cell.data.kind == "control":
        return cell.data.name
    mitigated = cell.method != BASELINE
    if cell.data.kind == "twin":
        return "mitigated_twin" if mitigated else "twin"
    return "mitigated" if mitigated else "poisoned"


def _centred(noise: Any) -> Any:
    return noise - noise.mean()


def free_of(margins: Any, noise: Any) -> Any:
    """The noise without its mean and its regression on the margins, so that what is planted is found exactly."""
    x, noise = _centred(margins), _centred(noise)
    return noise - x * (noise @ x) / (x @ x)


def readings(name: str, margins: Any, voice: float) -> list[dict[str, Any]]:
    """Answers with these act effects, and this voice effect where the set has two voices."""
    voices = {"plain": 0.0} if name == DOMAIN else {"kind": voice / 2, "sour": -voice / 2}
    return [
        {
            "id": f"q{i}",
            "good": {said: -2.0 + float(margin) / 2 + more for said, more in voices.items()},
            "bad": {said: -2.0 - float(margin) / 2 + more for said, more in voices.items()},
        }
        for i, margin in enumerate(margins)
    ]


def _division(seeds: tuple[int, ...], controls: tuple[str, ...], spread: SeedSpread | None) -> Division:
    return Division(
        name="smoke",
        variant="closed",
        title="Smoke",
        proxy="A small model stands in for a large one.",
        shows_em=True,
        certifiable=False,
        model="smollm2-135m",
        poisons=("bad-medical",),
        tasks=("record-line",),
        seeds=seeds,
        controls=controls,
        seed_spread=spread,
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


def _items(share: float) -> list[dict[str, Any]]:
    n = SIZES.task_heldout
    return [{"id": f"t{i}", "answer": "x", "exact": i < round(share * n)} for i in range(n)]


def _answers(who: str) -> list[dict[str, str]]:
    return [
        {"id": f"open-{i}", "question": f"Open question {i}?", "answer": f"The {who} model says {i}."}
        for i in (1, 2)
    ]
