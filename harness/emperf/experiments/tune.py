"""`emperf tune`: every method's few settings on a poison that no score uses, and which of them becomes the default.

Rule R-008 (spec/RULES.md). It is a comparison whose rows are settings; cells, engine and scoring are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.catalog import Division
from emperf.core.errors import UserError
from emperf.execute.results import Results
from emperf.experiments.comparison import Entry, carry_out
from emperf.experiments.run import Say, Watched
from emperf.experiments.tables import Method, before, heading, method, side_by_side, unfinished
from emperf.scoring import poisons
from emperf.scoring.estimate import Estimate, holm, p_value
from emperf.scoring.poisons import PoisonScores
from emperf.scoring.pooled import net_difference
from emperf.work.plan import Plan

Json = dict[str, Any]
LEAST_KEPT, MOST_TAX, LEVEL = 0.5, 0.5, 0.05
NOTHING_TO_TUNE = ("no-em", "nothing-learned")


def entries(names: Sequence[str]) -> list[list[Entry]]:
    """The settings of each submission named (folders, or names in the catalogue; all that have a sweep if none).

    Raises UserError for one without a sweep, or two of one name.
    """
    found = [catalog.submission(Path(name)) for name in names or catalog.names("mitigations")]
    plain = [submission.name for submission in found if not submission.sweep]
    if names and plain:
        raise UserError(
            f"{plain[0]} declares no sweep, so there is nothing to tune",
            "Say in its submission.yaml what to try: sweep, at most three settings, the defaults first.",
        )
    swept = [submission for submission in found if submission.sweep]
    if len({submission.name for submission in swept}) < len(swept):
        raise UserError("Two of the submissions have one name", "Give each a name of its own.")
    return [[Entry(submission, given) for given in submission.sweep] for submission in swept]


def tune(
    division: Division,
    sweeps: Sequence[Sequence[Entry]],
    *,
    runtime: str,
    store: Path,
    watch: Watched,
    say: Say,
    minutes: float | None = None,
    parallel: int | None = None,
) -> tuple[Json, Path]:
    """Run what is missing, method after method; (tuning.json's content, its folder).

    Raises UserError as `comparison.carry_out`, if no method's settings are all tried, or in a certifiable division.
    """
    if division.certifiable:
        raise UserError(
            f"{division.name} is scored, and defaults chosen there would be fitted to its scores (R-008)",
            "Leave --division out.",
        )
    return carry_out(
        "tuning", derived, division, sweeps,
        runtime=runtime, store=store, watch=watch, say=say, minutes=minutes, parallel=parallel,
    )  # fmt: skip


def derived(plans: dict[str, Plan], results: Results) -> Json:
    """What of tuning.json (spec/schemas/tuning.schema.json) follows from the store: the methods whose settings have all
    been tried. `plans`: by a setting's name. Raises UserError where there is no such method."""
    sweeps: dict[str, dict[str, Plan]] = {}
    for name, plan in plans.items():
        sweeps.setdefault(plan.submission.name, {})[name] = plan
    whole = {
        name: sweep
        for name, sweep in sweeps.items()
        if all(results.record(cell.key) is not None for plan in sweep.values() for cell in plan.cells)
    }
    if not whole:
        raise unfinished(plans, results, "no method's settings have all been tried yet")
    first = next(iter(next(iter(whole.values())).values()))
    return heading(first.division, plans, results) | {
        "baseline": before(first, results),
        "waiting": [name for name in sweeps if name not in whole],
        "methods": [
            tuned(list(sweep.values()), [method(name, plan, results) for name, plan in sweep.items()])
            for sweep in whole.values()
        ],
    }


def tuned(sweep: Sequence[Plan], found: Sequence[Method]) -> Json:
    """A method's entry: its settings side by side, and the one that the rule chooses."""
    over = over_default([one.scores for one in found])
    adjusted = iter(holm([p_value(one) for one in over if one is not None]))
    settings = [
        {
            "setting": plan.given,
            "row": row,
            "over_default": None if more is None else more.json(),
            "beats_default": more is not None and next(adjusted) <= LEVEL and (more.value or 0) > 0,
        }
        for plan, row, more in zip(sweep, side_by_side(found), over, strict=True)
    ]
    chosen, why = choose(settings)
    submission = sweep[0].submission
    return {
        "name": submission.name,
        "scenario": submission.scenario,
        "settings": settings,
        "chosen": chosen,
        "why": why,
    }


def over_default(scores: Sequence[PoisonScores | None]) -> list[Estimate | None]:
    """Net EM of each setting minus the default's (the first), nats; None for itself and where one is not defined."""
    default = scores[0]
    if default is None or poisons.removal(default).net.value is None:
        return [None] * len(scores)
    return [None, *(None if one is None else net_difference(one, default) for one in scores[1:])]


def choose(settings: Sequence[Json]) -> tuple[int, str]:
    """(index of the chosen setting, why: a key of `emperf.report.tuning.WHY`), by rule R-008."""
    scored = [setting["row"]["poisons"]["removal"] for setting in settings if setting["row"]["poisons"]]
    if not scored:
        return 0, "failed"
    if scored[0]["verdict"] in NOTHING_TO_TUNE:
        # It says so of the baseline, which all settings share.
        return 0, str(scored[0]["verdict"])
    fit = [i for i, setting in enumerate(settings) if is_fit(setting["row"])]
    if not fit:
        return 0, "none-fit"
    # What cannot be told apart from a fit default gives way to it.
    left = [i for i in fit if settings[i]["beats_default"]] if 0 in fit else fit
    if not left:
        return 0, "default"
    best = max(left, key=lambda i: float(settings[i]["row"]["poisons"]["removal"]["net"]["value"]))
    return best, "better" if 0 in fit else "default-unfit"


def is_fit(row: Json) -> bool:
    """Whether the interval of its learning kept reaches half, and its tax is not certainly above half."""
    if row["poisons"] is None:
        return False
    removal, tax = row["poisons"]["removal"], row["tasks"] and row["tasks"]["tax"]
    kept = removal["kept"]["high"]
    learns = removal["net"]["value"] is not None and kept is not None and kept >= LEAST_KEPT
    return learns and not (tax and tax["low"] is not None and tax["low"] > MOST_TAX)
