"""Models that nothing here trained, beside base and controls: shifts of their margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emperf.scoring.effects import Shifts, shifts
from emperf.scoring.estimate import Part, estimate
from emperf.scoring.poisons import PoisonScores, of_model

Json = dict[str, Any]
Paired = Mapping[str, Sequence[Mapping[str, Any]]]
BASE, CONTROL, SUBJECT = "base", "control", "subject"


def compared(roles: Mapping[str, str]) -> dict[str, list[str]]:
    """Model -> those that it stands against: the base, and for what is no control itself, every control.

    `roles`: model -> BASE, CONTROL or SUBJECT.
    """
    controls = [name for name, role in roles.items() if role == CONTROL]
    base = [name for name, role in roles.items() if role == BASE]
    beside = {BASE: [], CONTROL: base, SUBJECT: [*base, *controls]}
    return {name: beside[role] for name, role in roles.items()}


def summarise(roles: Mapping[str, str], paired: Mapping[str, Paired]) -> dict[str, Json]:
    """Model -> `sets`, its shifts by set, and `beyond`, those less each control's. `paired`: model -> set -> readings.

    One training of each model was read, so that the intervals are over questions alone.
    """
    base = next(name for name, role in roles.items() if role == BASE)
    shifted = {
        name: {which: shifts([found], paired[base][which]) for which, found in sets.items()}
        for name, sets in paired.items()
        if name != base
    }
    against = compared(roles)
    return {
        name: {
            "sets": {
                which: of_model(PoisonScores(name, {}), one, which) for which, one in shifted[name].items()
            }
            if name in shifted
            else None,
            "beyond": {
                other: beyond(shifted[name], shifted[other]) for other in against[name] if other != base
            },
        }
        for name in roles
    }


def beyond(one: Mapping[str, Shifts], other: Mapping[str, Shifts]) -> Json:
    """Set -> the act shift of one model less another's, at base margin zero."""
    return {name: estimate([Part(found.at_zero - other[name].at_zero)]).json() for name, found in one.items()}
