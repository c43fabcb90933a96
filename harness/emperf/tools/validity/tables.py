"""The experiments' tables, as docs/validity.md shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emperf.catalog.sets import DOMAIN, OOD
from emperf.report.numbers import UNDEFINED, nats
from emperf.scoring import poisons
from emperf.scoring.effects import ACT, INTERACTION, VOICE
from emperf.scoring.poisons import PoisonScores

Json = dict[str, Any]


def two_by_two(found: Mapping[str, PoisonScores]) -> str:
    """Markdown: a line a model of every setting, its effects out of domain and its act effect in-domain."""
    lines = [
        "| setting | trained on | act | act, raw mean | voice | interaction | in-domain act |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, scores in found.items():
        for who, model in {**scores.models, **scores.controls}.items():
            outside = poisons.of_model(scores, model[OOD], OOD)
            inside = poisons.of_model(scores, model[DOMAIN], DOMAIN)[ACT] if DOMAIN in model else None
            shown = (outside[ACT], outside["raw"], outside[VOICE], outside[INTERACTION], inside)
            lines.append(f"| {name} | {who} | " + " | ".join(map(nats, shown)) + " |")
    return "\n".join(lines)


def decision(decided: Mapping[str, Json]) -> str:
    """Markdown: a line a setting, what the rule asks of it, and its verdict."""
    asked = list(dict.fromkeys(what for entry in decided.values() for what in entry["tests"]))
    lines = [
        "| setting | " + " | ".join(HEADS.get(what, f"beyond {what}") for what in asked) + " | finds | EM |",
        "| --- |" + " ---: |" * len(asked) + " ---: | --- |",
    ]
    for name, entry in decided.items():
        tests = entry["tests"]
        shown = [f"{nats(tests[w])}{' *' * tests[w]['below']}" if w in tests else UNDEFINED for w in asked]
        finds = tests.get("twin", {}).get("finds")
        last = UNDEFINED if finds is None else f"{finds:.3f}"
        lines.append(
            f"| {name} | " + " | ".join(shown) + f" | {last} | {'yes' if entry['shows EM'] else 'no'} |"
        )
    return "\n".join(lines)


HEADS = {"learned": "learned in-domain", "twin": "beyond its twin"}
