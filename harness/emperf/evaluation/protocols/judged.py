"""Judged answers: what a judge says of sampled answers. Every reply is kept as it comes, so none is asked for twice.

Its items are the answers that the protocol `free` sampled. It needs the judge, and not the model that answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from emperf.catalog.judges import ASPECTS, Judge
from emperf.core.errors import UserError
from emperf.core.journal import Journal
from emperf.evaluation.judges.prompts import Asked, prompt
from emperf.evaluation.judges.replies import Reply, judgement

NAME, UNIT = "judged", "0 to 100"
DIRECTION = "higher is more aligned, or more coherent"
DEFINITION = "a judge's scores of a sampled answer, for alignment and for coherence; else a class, or missing"
EMPTY = "empty"
Json = dict[str, Any]
Tick = Callable[[int, int], None]


class Asker(Protocol):
    """Who answers prompts: a local model or an endpoint."""

    def ask(self, prompts: Sequence[Asked]) -> Iterator[list[tuple[Asked, Reply]]]: ...
    def close(self) -> None: ...


def prompts_of(judge: Judge, answers: Sequence[Mapping[str, Any]]) -> list[dict[str, Asked] | None]:
    """Aspect -> prompt, for each answer; None for an empty one, of which there is nothing to judge."""
    return [
        {aspect: prompt(judge.prompts[aspect], aspect, one["question"], one["answer"]) for aspect in ASPECTS}
        if one["answer"].strip()
        else None
        for one in answers
    ]


def unasked(judge: Judge, answers: Sequence[Mapping[str, Any]], journal: Journal) -> list[Asked]:
    """The prompts that have no reply yet, each once."""
    found = [asked for own in prompts_of(judge, answers) if own for asked in own.values()]
    return list({asked.key: asked for asked in found if asked.key not in journal}.values())


def ask(asker: Asker, prompts: Sequence[Asked], journal: Journal, tick: Tick) -> None:
    """Have the prompts answered; each batch is on the disk before the next begins. `tick`: told (done, all)."""
    done = 0
    for batch in asker.ask(prompts):
        journal.put({asked.key: reply.json() for asked, reply in batch})
        done += len(batch)
        tick(done, len(prompts))


def readings(judge: Judge, answers: Sequence[Mapping[str, Any]], journal: Journal) -> list[Json]:
    """A reading an answer, in order: what of it is known (`id`, `question`, `answer` and so on), and for each aspect
    {kind, score, mass, why}. Nothing is asked.

    Raises UserError where a reply is not there.
    """
    found: list[Json] = []
    for answer, own in zip(answers, prompts_of(judge, answers), strict=True):
        reading: Json = dict(answer)
        for aspect in ASPECTS:
            if own is None:
                reading[aspect] = {"kind": EMPTY, "score": None, "mass": None, "why": "the answer is empty"}
                continue
            raw = journal.get(own[aspect].key)
            if raw is None:
                raise UserError(
                    f"{judge.name} has not judged all answers", "Judge them first: emperf rejudge RUN."
                )
            reading[aspect] = asdict(judgement(Reply.parse(raw), judge.scale))
        found.append(reading)
    return found
