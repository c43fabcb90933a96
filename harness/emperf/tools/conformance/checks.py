"""The checks of `emperf check`, in order; each is one line with its number."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.catalog import Parameter, Submission
from emperf.catalog.scenarios import CURE
from emperf.core.errors import UserError
from emperf.experiments import session
from emperf.runtimes import Runtime
from emperf.tools.conformance.reading import (
    Effect,
    largest_difference,
    read_effect,
    read_steps,
    relative_difference,
)
from emperf.tools.conformance.setting import DIVISION, WEIGHTS, Left, Setting
from emperf.training.__main__ import UNUSABLE
from emperf.work.outputs import shown
from emperf.work.plan import BASELINE

# Weights of two runs of one seed, and what counts as no effect, relative; in float64, rounding lies below 1e-12.
SAME, NO_EFFECT = 1e-6, 1e-6
# How far an engine that steps a copy of the weights may lead elsewhere; rounding makes less than a thousandth of it.
UNDONE = 0.05
# Gives the runtime and each submission's image, by digest.
Chooser = Callable[[list[Submission]], tuple[Runtime, dict[str, str]]]


@dataclass(frozen=True)
class Check:
    """One thing looked at. `found`: what there is, with the number, or what is wrong."""

    name: str
    ok: bool
    found: str


def check(
    folder: Path, given: dict[str, Any], setting: Callable[[], Setting], choose: Chooser
) -> Iterator[Check]:
    """Every check, until one fails without which the next cannot be made. At most three jobs are run.

    `given`: parameter values. Raises UserError where they or the runtime cannot be had, CellFailure(MACHINE).
    """
    try:
        submission, budget = declared(folder)
    except UserError as error:
        yield Check("declared", False, str(error))
        return
    asked = sum(submission.trusted.values())
    rows = f"{asked} trusted rows of at most {budget}" if asked else "no trusted rows"
    yield Check("declared", True, f"submission.yaml keeps its schema; {submission.scenario}, {rows}")
    accepted, tried = wrong_values(submission)
    values, made = submission.values(given), setting()
    baseline = catalog.submission(Path(BASELINE))
    runtime, images = choose([submission, baseline] if submission.image else [submission])
    image = images.get(submission.digest)

    first = made.train(runtime, image, submission, values)
    unusable = first.exit_code == UNUSABLE
    probed = None
    if not first.failure and not submission.image:
        probed = made.probe(runtime, image, submission, values)
    effect, why_not = effect_of(probed)
    yield parameters(submission, accepted, tried, str(first.failure) if unusable else "", effect)
    if unusable:
        return
    yield contract(submission, first)
    if first.failure:
        return
    yield determinism(first, made.train(runtime, image, submission, values))
    if submission.image:
        start = made.start
        if not submission.mends:
            plain = made.train(runtime, images.get(baseline.digest), baseline, baseline.values({}))
            if plain.failure:
                yield Check("effect", False, f"the baseline failed: {plain.failure}")
                return
            start = plain.folder / WEIGHTS
        yield image_effect(relative_difference(first.folder / WEIGHTS, start), submission.scenario)
    elif effect is None:
        yield Check("effect", False, why_not)
    else:
        yield measured(submission, effect)


def declared(folder: Path) -> tuple[Submission, int]:
    """(submission, the largest budget of trusted rows of any division). Raises UserError."""
    submission = catalog.submission(folder)
    session.check_name(submission, catalog.submission(Path(BASELINE)))
    catalog.division(DIVISION).recipe_of(submission.scenario)
    roomiest = max(map(catalog.division, catalog.names("divisions")), key=lambda d: d.trusted_rows)
    session.check_trusted(roomiest, submission)
    return submission, roomiest.trusted_rows


def wrong_values(submission: Submission) -> tuple[list[str], int]:
    """(wrong values that `Submission.values` accepts, as NAME=VALUE; how many were tried)."""
    accepted, tried = [], 0
    for name, parameter in submission.parameters.items():
        for wrong in outside(parameter):
            tried += 1
            try:
                submission.values({name: wrong})
            except UserError:
                continue
            accepted.append(f"{name}={wrong!r}")
    return accepted, tried


def outside(parameter: Parameter) -> list[Any]:
    """Values of a wrong type, and the nearest ones out of bounds."""
    if parameter.type == "str":
        return [3, True, *(["".join(map(str, parameter.choices)) + "?"] if parameter.choices else [])]
    if parameter.type == "bool":
        return ["maybe", 3]
    assert parameter.min is not None and parameter.max is not None, "the schema asks for both"
    if parameter.type == "int":
        beyond: list[Any] = [below(math.ceil, parameter.min), -below(math.ceil, -parameter.max), 0.5]
    else:
        beyond = [below(next_down, parameter.min), -below(next_down, -parameter.max), math.nan]
    return ["many", True, *beyond, *([parameter.max + 1] if parameter.choices else [])]


def next_down(value: float) -> float:
    return math.nextafter(value, -math.inf)


def below(down: Callable[[float], float], bound: float) -> float:
    """The nearest number below; a very low one where the bound is none, so that it is seen to be accepted."""
    if not math.isfinite(bound):
        return -int(sys.float_info.max) if down is math.ceil else -sys.float_info.max
    return math.ceil(bound) - 1 if down is math.ceil else down(bound)


def parameters(
    submission: Submission, accepted: list[str], tried: int, refused: str, effect: Effect | None
) -> Check:
    """`refused`: why the class did not take the declared values, else empty."""
    declared = {name: parameter.type for name, parameter in submission.parameters.items()}
    if accepted:
        return Check("parameters", False, f"{accepted[0]} is accepted; give {submission.name} finite bounds")
    if refused:
        return Check("parameters", False, refused)
    for name, kind in effect.parameters.items() if effect else ():
        if name not in declared:
            return Check("parameters", False, f"the class has {name}, submission.yaml does not declare it")
        if kind != declared[name]:
            return Check(
                "parameters", False, f"{name} is {kind} in the class, {declared[name]} in submission.yaml"
            )
    same = "" if effect is None else ", the class has the same"
    return Check(
        "parameters", True, f"{len(declared)} declared{same}; {tried} of {tried} wrong values refused"
    )


def contract(submission: Submission, left: Left) -> Check:
    if left.failure:
        return Check("contract", False, str(left.failure))
    if "report.json" not in left.files:
        # An image may leave none (spec/CONTRACT.md); the reference trainer always does.
        return Check(
            "contract", bool(submission.image), f"exit code 0; {', '.join(left.files)}; no report.json"
        )
    try:
        steps = read_steps(left.folder / "report.json", left.job_id)
    except ValueError as error:
        return Check("contract", False, f"report.json: {shown(str(error))}")
    return Check("contract", True, f"exit code 0, {steps} steps; {', '.join(left.files)}")


def determinism(first: Left, second: Left) -> Check:
    if second.failure:
        return Check("determinism", False, f"the second run of the same seed failed: {second.failure}")
    apart = largest_difference(first.folder / WEIGHTS, second.folder / WEIGHTS)
    return Check(
        "determinism", apart <= SAME, f"two runs of one seed: largest difference of a weight {apart:.2g}"
    )


def effect_of(probed: Left | None) -> tuple[Effect | None, str]:
    """(what the probe saw, or why there is nothing)."""
    if probed is None or probed.failure:
        return None, str(probed.failure) if probed else ""
    try:
        return read_effect(probed.folder / "probe.json"), ""
    except ValueError as error:
        return None, f"probe.json: {shown(str(error))}"


def measured(submission: Submission, effect: Effect) -> Check:
    """A cure has to move the weights that it was given; for the others plain training is what it is compared with."""
    against = "the weights to mend" if submission.mends else "plain training"
    numbers = (
        f"against {against}: {effect.rows_changed} rows in or out of {effect.rows}, gradient {effect.gradient:.2g}, "
        f"weights {effect.weights:.2g}"
    )
    if effect.engine > UNDONE:
        lost = f"the engine undoes it: with a copy of the weights it ends {effect.engine:.2g} elsewhere"
        return Check("effect", False, f"{lost}; {numbers}")
    if submission.name == BASELINE:
        nothing = effect.rows_changed == effect.gradient == effect.weights == 0
        return Check("effect", nothing, f"{numbers}; the baseline has to be exactly 0 in all three")
    moved = effect.weights > NO_EFFECT
    does = moved or (not submission.mends and (effect.rows_changed > 0 or effect.gradient > NO_EFFECT))
    return Check("effect", does, numbers if does else f"it changes nothing; {numbers}")


def image_effect(apart: float, scenario: str) -> Check:
    against = "the weights to mend" if scenario == CURE.name else "the baseline's of the same seed"
    does = apart > NO_EFFECT
    return Check(
        "effect", does, f"{'' if does else 'it changes nothing; '}weights against {against}: {apart:.2g}"
    )
