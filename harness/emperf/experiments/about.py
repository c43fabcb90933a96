"""What an experiment keeps of itself in run.json, and the plans that are made of it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.catalog import Division, Submission
from emperf.core.errors import UserError
from emperf.core.files import read_json
from emperf.execute.results import Index, Results
from emperf.execute.store import RunStore
from emperf.work.plan import Cell, Data, Plan

Json = dict[str, Any]


def about(kind: str, division: Division, plans: Mapping[str, Plan]) -> Json:
    """`plans`: by a row's name; one of a run."""
    return {
        "kind": kind,
        "division": {
            "name": division.called, "digest": division.digest, "poisons": division.poisons, "tasks": division.tasks,
            "seeds": division.seeds,
        },
        "plans": {
            name: {
                "submission": {
                    key: str(getattr(plan.submission, key))
                    for key in ("name", "title", "submitter", "scenario", "source", "folder", "digest")
                },
                "parameters": plan.parameters,
                "given": plan.given,
                "cells": [cell.key for cell in plan.cells],
                "cross": plan.cross,
                "domains": dict(plan.domains),
            }
            for name, plan in plans.items()
        },
    }  # fmt: skip


def again(folder: Path) -> tuple[str, dict[str, Plan], Results]:
    """(kind, plans by a row's name, what is stored) of a run's folder.

    Raises UserError where run.json is missing or damaged, where it is of a trace, or where the division has changed
    since.
    """
    facts = read_json(folder / "run.json")
    try:
        said = facts["about"]
        if said.get("kind") == "evaluation":
            raise UserError(
                f"{folder.name} is an evaluation, which trained nothing",
                f"See it with: emperf report {folder.name}; judge its answers again with: emperf rejudge {folder.name}",
            )
        cells = {cell.key: cell for cell in map(parse_cell, facts["cells"])}
        index = Index.parse(facts["readings"])
        if said == {}:
            raise UserError(
                f"{folder.name} is a trace, which is neither scored again nor exported",
                f"See it with: emperf report {folder.name}",
            )
        division = again_division(said["division"])
        if said["kind"] != "result":
            division = replace(division, sampled=None)
        plans = {
            name: Plan(
                division, submission_of(one["submission"]), one["parameters"],
                tuple(cells[key] for key in one["cells"]), "", one["cross"], one["domains"], one["given"],
            )
            for name, one in said["plans"].items()
        }  # fmt: skip
        kind = str(said["kind"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"{folder / 'run.json'} is damaged, or of another version",
            "Give the same command as before: it writes the file again and keeps what is stored.",
        ) from None
    return kind, plans, Results(RunStore(folder.parents[1], folder.name), cells.values(), index)


def again_division(said: Json) -> Division:
    whole = catalog.division(said["name"])
    if whole.digest != said["digest"]:
        raise UserError(
            f"The division {whole.name} is not the one of this run any more",
            "Restore its card (git checkout), or run it again.",
        )
    same = [list(whole.poisons), list(whole.tasks), list(whole.seeds)]
    part = replace(
        whole, poisons=tuple(said["poisons"]), tasks=tuple(said["tasks"]), seeds=tuple(said["seeds"])
    )
    is_whole = same == [said["poisons"], said["tasks"], said["seeds"]]
    return part if is_whole else replace(part, certifiable=False)


def submission_of(said: Json) -> Submission:
    """What of a submission is recorded: enough to score and to name it, not to run it."""
    return Submission(**{**said, "folder": Path(said["folder"])})


def parse_cell(raw: Json) -> Cell:
    return Cell(**{**raw, "data": Data(**raw["data"])})
