"""division x submission x seeds -> cells. Pure: the same inputs give the same plan, whatever the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from emperf import digests
from emperf.catalog import Division, Submission

BASELINE = "none"


@dataclass(frozen=True)
class Data:
    """What a cell trains on. `kind`: "poison", "twin" (the poison's correct rows) or "task"."""

    kind: str
    name: str


@dataclass(frozen=True)
class Cell:
    """One training run and its evaluation. `key` names it by content; two plans that share a key share its scores.

    `read_checkpoints`: the cell's checkpoints are scored too (the baseline's learning curve). `place`: where it is
    trained and scored (runtime, its isolation or image, device): scores of one place are none of another's.
    """

    scenario: str
    division: str
    model: str
    data: Data
    method: str
    submission: str
    seed: int
    parameters: dict[str, Any] = field(default_factory=dict)
    read_checkpoints: bool = False
    rules: str = ""
    place: str = ""

    @property
    def key(self) -> str:
        return digests.short(digests.of_json(asdict(self)))

    @property
    def label(self) -> str:
        kind = " (twin)" if self.data.kind == "twin" else ""
        return f"{self.method} on {self.data.name}{kind}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """The cells of one run, in the order they run: baseline and mitigation in turn on each dataset."""

    division: Division
    submission: Submission
    parameters: dict[str, Any]
    cells: tuple[Cell, ...]
    identity: str

    @property
    def run_id(self) -> str:
        return f"{self.division.name}-{self.submission.name}-{self.identity[:8]}"


def make_plan(
    division: Division,
    submission: Submission,
    baseline: Submission,
    given: dict[str, Any],
    *,
    model_digest: str,
    twins: dict[str, bool],
    rules: str,
    place: str,
) -> Plan:
    """`twins`: poison -> whether it has a correct twin. `rules`: digest of everything else that decides a score (the
    trainer's sources, the questions, the rows). `place`: as of `Cell`."""
    parameters = submission.values(given)
    cells = tuple(_cells(division, submission, baseline, parameters, model_digest, twins, rules, place))
    identity = digests.of_json([submission.digest, [cell.key for cell in cells]])
    return Plan(division, submission, parameters, cells, digests.short(identity))


def _cells(
    division: Division,
    submission: Submission,
    baseline: Submission,
    parameters: dict[str, Any],
    model_digest: str,
    twins: dict[str, bool],
    rules: str,
    place: str,
) -> Iterator[Cell]:
    def cell(kind: str, name: str, method: Submission, values: dict[str, Any], seed: int) -> Cell:
        return Cell(
            scenario=submission.scenario,
            division=division.digest,
            model=model_digest,
            data=Data(kind, name),
            method=method.name,
            submission=method.digest,
            seed=seed,
            parameters=values,
            read_checkpoints=kind == "poison" and method is baseline,
            rules=rules,
            place=place,
        )

    mitigated = submission.digest != baseline.digest
    for seed in division.seeds:
        for kind, name in [
            *(("poison", p) for p in division.poisons),
            *(("task", t) for t in division.tasks),
        ]:
            yield cell(kind, name, baseline, baseline.values({}), seed)
            if mitigated:
                yield cell(kind, name, submission, parameters, seed)
            if kind == "poison" and twins[name]:
                yield cell("twin", name, baseline, baseline.values({}), seed)
