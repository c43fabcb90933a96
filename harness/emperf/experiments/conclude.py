"""result.json of one run, from what its store holds."""

from __future__ import annotations

from typing import Any

from emperf import catalog, records
from emperf.core import digests
from emperf.execute.results import Results
from emperf.execute.store import RunStore
from emperf.experiments import judging
from emperf.records import provenance
from emperf.runtimes import Runtime, starts
from emperf.scoring import result
from emperf.work.plan import Plan

CERTIFIABLE = "docker"


def conclude(
    plan: Plan, store: RunStore, runtime: Runtime, results: Results, *, measured: bool
) -> dict[str, Any]:
    """Written to the run's folder, checked. `measured`: whether anything was measured anew; if not,
    when and where stay what they were."""
    whole = provenance.now(store.run_id, with_starts(runtime.describe())) | derived(plan, results)
    return records.finish("result", store.folder, whole, measured=measured)


def with_starts(facts: dict[str, Any]) -> dict[str, Any]:
    """A runtime's facts, with how long a bare start of each image used takes: a part of every cell's time."""
    images = facts.get("images", {})
    timed = {name: image | {"start_s": round(starts.bare_start_s(name), 3)} for name, image in images.items()}
    return facts | ({"images": timed} if timed else {})


def derived(plan: Plan, results: Results) -> dict[str, Any]:
    """What of result.json follows from the store: all but when, where and by which sources it was made."""
    division, base = plan.division, results.base()
    # Weights that another runtime trained have other keys, so the cells tell.
    users_cards = catalog.users_cards(division)
    in_docker = all(cell.place.startswith(f"{CERTIFIABLE},") for cell in plan.cells)
    return {
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
        "certifiable": division.certifiable and in_docker and not users_cards,
        "users_cards": users_cards,
        "cells": [results.record(cell.key) for cell in plan.cells],
        "answers": answers(plan, results, base),
        **result.summarise(plan, results.scores, results.record, base),
        **judging.summarise(plan, results),
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
