"""division x submission x seeds -> cells. Pure: the same inputs give the same plan, whatever the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from emperf.catalog import Division, Submission
from emperf.core import digests

BASELINE = "none"


@dataclass(frozen=True)
class Data:
    """What a cell trains on. `kind`: "poison", "twin" (the poison's correct rows), "control" (correct rows in the voice
    that `name` says, or a task's, scored as a poison's model is) or "task"."""

    kind: str
    name: str


@dataclass(frozen=True)
class Cell:
    """One training run and its evaluation. `key` names it by content; two plans that share a key share its scores.

    `division`: as of `Division.scored_by`. `read_checkpoints`: the cell's checkpoints are scored too (the baseline's
    learning curve). `place`: where it is trained and scored (runtime, its isolation or image, device): scores of one
    place are none of another's. `start`: the key of the cell whose weights are mended (scenario cure); `antidote`: the
    poison from whose domain its trusted rows are. `teacher`: the key of the cell whose model generates the rows.
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
    start: str = ""
    antidote: str = ""
    teacher: str = ""

    @property
    def key(self) -> str:
        return digests.short(digests.of_json(asdict(self)))

    @property
    def label(self) -> str:
        kind = {"twin": " (twin)", "control": " (control)"}.get(self.data.kind, "")
        made_for = f" made for {self.antidote}" if self.antidote not in ("", self.data.name) else ""
        return f"{self.method}{made_for} on {self.data.name}{kind}, seed {self.seed}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the cells whose weights this one needs."""
        return tuple(key for key in (self.start, self.teacher) if key)


@dataclass(frozen=True)
class Plan:
    """The cells of one run, in the order they run: baseline and mitigation in turn on each dataset, and no cell before
    one that it needs. `domains`: as of `Ground`."""

    division: Division
    submission: Submission
    parameters: dict[str, Any]
    cells: tuple[Cell, ...]
    identity: str
    cross: bool = False
    domains: Mapping[str, str] = field(default_factory=dict)

    def own_antidote(self, cell: Cell) -> bool:
        """False for a cross-antidote cell."""
        name = cell.data.name
        return cell.data.kind == "task" or cell.antidote in ("", self.domains.get(name, name))

    @property
    def run_id(self) -> str:
        crossed = "-cross" if self.cross else ""
        return f"{self.division.name}-{self.submission.name}{crossed}-{self.identity[:8]}"


@dataclass(frozen=True)
class Ground:
    """What all cells of a plan stand on.

    `twins`: poison -> whether it has a correct twin. `teachers`: poison -> the poison of its teacher. `domains`: poison
    -> the one whose trusted rows are its own, where that is another. `on_tasks`: (task, seed) -> the poison whose
    trusted rows a cure is granted there. `rules`: dataset -> digest of everything else that decides its scores (the
    trainer's sources, the questions, the rows). `place`: as of `Cell`.
    """

    model_digest: str
    twins: Mapping[str, bool]
    rules: Mapping[str, str]
    place: str
    teachers: Mapping[str, str] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)
    on_tasks: Mapping[tuple[str, int], str] = field(default_factory=dict)


def make_plan(
    division: Division,
    submission: Submission,
    baseline: Submission,
    given: dict[str, Any],
    ground: Ground,
    *,
    cross: bool = False,
) -> Plan:
    """`cross`: mend every poison with the trusted rows of every other's domain too, but for domains whose rows are
    generated for their own poison."""
    parameters = submission.values(given)
    made = _Cells(division, submission, baseline, parameters, ground, cross)
    cells = tuple({cell.key: cell for cell in made.all()}.values())
    identity = digests.of_json([submission.digest, [cell.key for cell in cells]])
    return Plan(division, submission, parameters, cells, digests.short(identity), cross, ground.domains)


@dataclass(frozen=True)
class _Cells:
    division: Division
    submission: Submission
    baseline: Submission
    parameters: dict[str, Any]
    ground: Ground
    cross: bool

    def all(self) -> Iterator[Cell]:
        poisons, tasks = self.division.poisons, self.division.tasks
        mitigated = self.submission.digest != self.baseline.digest
        twinned = [("twin", name) for name in poisons if self.ground.twins[name]]
        on_poisons = sorted(
            (*(("poison", name) for name in poisons), *twinned), key=lambda on: poisons.index(on[1])
        )
        for seed in self.division.seeds:
            for kind, name in [*on_poisons, *(("task", name) for name in tasks)]:
                if name in self.ground.teachers:
                    yield self.teacher(name)
                plain = self.plain(kind, name, seed)
                yield plain
                if mitigated:
                    yield from self.mitigated(plain)
            for voice in self.division.controls:
                yield self.plain("control", voice, seed)

    def teacher(self, name: str) -> Cell:
        """The model that generates a poison's rows: the first seed's baseline, so that all seeds learn the same."""
        return self.plain("poison", self.ground.teachers[name], self.division.seeds[0])

    def plain(self, kind: str, name: str, seed: int) -> Cell:
        return Cell(
            scenario="prevent",
            division=self.division.scored_by("prevent"),
            model=self.ground.model_digest,
            data=Data(kind, name),
            method=self.baseline.name,
            submission=self.baseline.digest,
            seed=seed,
            parameters=self.baseline.values({}),
            read_checkpoints=kind in ("poison", "twin"),
            rules=self.ground.rules[f"control {name}" if kind == "control" else name],
            place=self.ground.place,
            teacher=self.teacher(name).key if name in self.ground.teachers else "",
        )

    def mitigated(self, plain: Cell) -> Iterator[Cell]:
        cell = replace(
            plain,
            scenario=self.submission.scenario,
            division=self.division.scored_by(self.submission.scenario),
            method=self.submission.called(self.parameters),
            submission=self.submission.digest,
            parameters=self.parameters,
            read_checkpoints=False,
        )
        if self.submission.scenario != "cure":
            yield cell
        elif not self.submission.crosses:
            yield replace(cell, start=plain.key)
        else:
            for antidote in self.antidotes(plain):
                rules = digests.of_json([plain.rules, self.ground.rules[antidote]])
                yield replace(cell, start=plain.key, antidote=antidote, rules=rules)

    def antidotes(self, plain: Cell) -> list[str]:
        """The poisons whose domains' trusted rows a cell is mended with."""
        poisons, ground = self.division.poisons, self.ground
        if plain.data.kind == "task":
            return [ground.on_tasks[plain.data.name, plain.seed]]
        own = ground.domains.get(plain.data.name, plain.data.name)
        others = [
            ground.domains.get(name, name) for name in poisons if self.cross and name not in ground.teachers
        ]
        return list(dict.fromkeys([own, *others]))
