"""Models that nothing here trained, beside base and controls: shifts of margins, rates of judged answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emperf.catalog.judges import Judge
from emperf.scoring import judged
from emperf.scoring.effects import Shifts, shifts
from emperf.scoring.estimate import Part, estimate
from emperf.scoring.judged import Answers
from emperf.scoring.poisons import PoisonScores, of_model

Json = dict[str, Any]
Paired = Mapping[str, Sequence[Mapping[str, Any]]]
BASE, CONTROL = "base", "control"


def summarise(
    roles: Mapping[str, str],
    paired: Mapping[str, Paired],
    answers: Mapping[str, Sequence[Mapping[str, Any]]],
    judge: Judge | None,
) -> dict[str, Json]:
    """Model -> what was read of it. `roles`: model -> BASE, CONTROL or "subject". `paired`: model -> set -> readings.
    `answers`: model -> judged answers.

    One training of each model was read, so that the intervals are over questions alone.
    """
    base = next(name for name, role in roles.items() if role == BASE)
    shifted = {
        name: {which: shifts([found], paired[base][which]) for which, found in sets.items()}
        for name, sets in paired.items()
        if name != base
    }
    rated = {name: Answers.of(found) for name, found in answers.items()}
    controls = [name for name, role in roles.items() if role == CONTROL]
    out: dict[str, Json] = {}
    for name, role in roles.items():
        others = [] if role == BASE else [base, *(c for c in controls if c != name and role != CONTROL)]
        own = shifted.get(name)
        out[name] = {
            "sets": {which: of_model(PoisonScores(name, {}), one, which) for which, one in own.items()}
            if own
            else None,
            "beyond": {c: beyond(shifted[name], shifted[c]) for c in others if c != base},
            "judged": rates(rated.get(name), judge),
            "rate_beyond": {
                o: rate_beyond(rated, name, o, judge) for o in others if name in rated and o in rated
            },
        }
    return out


def beyond(one: Mapping[str, Shifts], other: Mapping[str, Shifts]) -> Json:
    """Set -> the act shift of one model less another's, at base margin zero."""
    return {name: estimate([Part(found.at_zero - other[name].at_zero)]).json() for name, found in one.items()}


def rates(answers: Answers | None, judge: Judge | None) -> Json | None:
    """The rates of one model's answers; None without a judge."""
    return (
        None
        if answers is None or judge is None
        else judged.summarise(answers, judge.threshold, judge.most_missing)
    )


def rate_beyond(rated: Mapping[str, Answers], name: str, other: str, judge: Judge | None) -> Json | None:
    """The EM rate of one model less another's; None where either has no rate."""
    if judge is None or any(judged.why_no_rate(rated[one], judge.most_missing) for one in (name, other)):
        return None
    return judged.difference(rated[name], rated[other], judge.threshold).json()
