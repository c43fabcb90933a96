"""result.json of one run, from what its store holds."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.core import digests
from emperf.core.files import read_json, write_json
from emperf.core.sources import PACKAGE
from emperf.core.version import VERSION
from emperf.execute.results import Results
from emperf.execute.store import RunStore
from emperf.runtimes import Runtime
from emperf.scoring import result
from emperf.work.plan import Plan

CERTIFIABLE = "docker"


def conclude(
    plan: Plan, store: RunStore, runtime: Runtime, results: Results, *, measured: bool
) -> dict[str, Any]:
    """Written to the run's folder, checked against its schema. `measured`: whether anything was measured anew; if not,
    when and where stay what they were."""
    whole = {
        "emperf": VERSION,
        "sources": sources(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "runtime": runtime.describe(),
        "machine": machine(),
        **derived(plan, results),
    }
    before = read_json(store.folder / "result.json")
    if before and not measured:
        whole |= {
            name: before[name] for name in ("created", "sources", "runtime", "machine") if name in before
        }
    catalog.check("result", whole)
    write_json(store.folder / "result.json", whole)
    return whole


def derived(plan: Plan, results: Results) -> dict[str, Any]:
    """What of result.json follows from the store: all but when, where and by which sources it was made."""
    division, base = plan.division, results.base()
    # Weights that another runtime trained have other keys, so the cells tell.
    in_docker = all(cell.place.startswith(f"{CERTIFIABLE},") for cell in plan.cells)
    return {
        "schema": 1,
        "run_id": results.store.run_id,
        "division": {
            "name": division.name, "variant": division.variant,
            "digest": division.digest, "proxy": division.proxy, "shows_em": division.shows_em,
            "seed_spread": division.seed_spread is not None,
        },
        "submission": {
            "name": plan.submission.name, "title": plan.submission.title, "submitter": plan.submission.submitter,
            "scenario": plan.submission.scenario, "digest": plan.submission.digest, "parameters": plan.parameters,
        },
        "model": {"name": division.model, "digest": plan.cells[0].model},
        "rules": digests.of_json(results.keys()),
        "certifiable": division.certifiable and in_docker and not catalog.users_cards(division),
        "cells": [results.record(cell.key) for cell in plan.cells],
        "answers": answers(plan, results, base),
        **result.summarise(plan, results.scores, results.record, base),
    }  # fmt: skip


def answers(plan: Plan, results: Results, base: dict[str, Any]) -> list[dict[str, Any]]:
    """The same sampled questions answered by base, poisoned and mitigated models, side by side."""
    name = plan.division.poisons[0]
    found = [("base", base["poisons"].get(name, {}).get("answers", []))]
    for who, baseline in (("poisoned", True), ("mitigated", False)):
        for cell in result.select(plan, "poison", name, baseline)[:1]:
            stored = results.scores(cell.key)
            found.append((who, stored["answers"] if stored else []))
    return [{"model": who, "poison": name, **answer} for who, given in found for answer in given]


def sources() -> str:
    """Digest of the harness itself, every file of the package: its version says too little between releases."""
    return digests.of_folder(PACKAGE)


def machine() -> dict[str, Any]:
    """The system description of result.json; no host name."""
    import psutil
    import torch

    return {
        "os": platform.system(), "kernel": platform.release(), "python": platform.python_version(),
        "processor": processor(), "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total, "torch": torch.__version__,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }  # fmt: skip


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
