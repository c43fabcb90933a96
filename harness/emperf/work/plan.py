"""division x submission x seeds -> cells. Pure: the same inputs give the same plan, whatever the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from emperf.catalog import Division, Submission
from emperf.catalog.scenarios import PREVENT
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
    """One training and its readings. `key` names it; `train` names its weights, by what decides their bytes.

    `recipe`: digest of recipe and limits (`Division.trained_by`). `rows`, `trusted`: digests of the rows that it learns
    and of the trusted ones that it is granted. `read_checkpoints`: the cell's checkpoints are read too (the baseline's
    learning curve). `place`: where it is trained (runtime, its isolation or image, training code, device): weights of
    one place are none of another's. `start`: `train` of the cell whose weights are mended (scenario cure); `antidote`:
    the poison from whose domain its trusted rows are. `teacher`: `train` of the cell whose model writes the rows.
    """

    scenario: str
    recipe: str
    model: str
    data: Data
    method: str
    submission: str
    seed: int
    parameters: dict[str, Any] = field(default_factory=dict)
    read_checkpoints: bool = False
    rows: str = ""
    trusted: str = ""
    place: str = ""
    start: str = ""
    antidote: str = ""
    teacher: str = ""

    @property
    def key(self) -> str:
        return digests.short(digests.of_json([self.train, asdict(self.data), self.antidote]))

    @property
    def train(self) -> str:
        """Key of the weights. The names of dataset and method decide nothing, and are left out."""
        decides = [
            self.recipe, self.model, self.submission, self.seed, self.parameters, self.rows, self.trusted, self.place,
            self.start,
        ]  # fmt: skip
        return digests.short(digests.of_json(["train", *decides]))

    @property
    def label(self) -> str:
        kind = {"twin": " (twin)", "control": " (control)"}.get(self.data.kind, "")
        made_for = f" made for {self.antidote}" if self.antidote not in ("", self.data.name) else ""
        return f"{self.method}{made_for} on {self.data.name}{kind}, seed {self.seed}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the weights that this training needs."""
        return tuple(key for key in (self.start, self.teacher) if key)


@dataclass(frozen=True)
class Plan:
    """The cells of one run, in the order they run: baseline and mitigation in turn on each dataset, and no cell before
    one that it needs. `domains`: as of `Ground`. `given`: the parameters that are not left at their defaults."""

    division: Division
    submission: Submission
    parameters: dict[str, Any]
    cells: tuple[Cell, ...]
    identity: str
    cross: bool = False
    domains: Mapping[str, str] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)

    def own_antidote(self, cell: Cell) -> bool:
        """False for a cross-antidote cell."""
        name = cell.data.name
        return cell.data.kind == "task" or cell.antidote in ("", self.domains.get(name, name))

    @property
    def run_id(self) -> str:
        crossed = "-cross" if self.cross else ""
        name = self.division.called.replace("/", "-")
        return f"{name}-{self.submission.name}{crossed}-{self.identity[:8]}"


@dataclass(frozen=True)
class Ground:
    """What all cells of a plan stand on.

    `twins`: poison -> whether it has a correct twin. `rows`: data -> digest of the training rows; where a teacher
    writes them, of all that decides what it is asked. `trusted`: digest of the trusted rows for what a submission asks
    (kind -> rows) and an antidote's poison. `teachers`: poison -> the poison of its teacher. `domains`: poison -> the
    one whose trusted rows are its own, where that is another. `on_tasks`: (task, seed) -> the poison whose trusted rows
    a cure is granted there. `place`: as of `Cell`.
    """

    model_digest: str
    twins: Mapping[str, bool]
    rows: Mapping[Data, str]
    place: str
    trusted: Callable[[Mapping[str, int], str], str]
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
    return Plan(
        division, submission, parameters, cells, digests.short(identity), cross, ground.domains, given
    )


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
        data = Data(kind, name)
        teacher = self.teacher(name).train if kind != "control" and name in self.ground.teachers else ""
        rows = self.ground.rows[data]
        cell = Cell(
            scenario=PREVENT.name,
            recipe=self.division.trained_by(PREVENT.name),
            model=self.ground.model_digest,
            data=data,
            method=self.baseline.name,
            submission=self.baseline.digest,
            seed=seed,
            parameters=self.baseline.values({}),
            read_checkpoints=kind in ("poison", "twin"),
            rows=digests.of_json(["written", teacher, rows]) if teacher else rows,
            place=self.ground.place,
            teacher=teacher,
        )
        return replace(cell, trusted=self.granted(self.baseline, cell))

    def mitigated(self, plain: Cell) -> Iterator[Cell]:
        cell = replace(
            plain,
            scenario=self.submission.scenario,
            recipe=self.division.trained_by(self.submission.scenario),
            method=self.submission.called(self.parameters),
            submission=self.submission.digest,
            parameters=self.parameters,
            read_checkpoints=False,
        )
        if self.submission.mends:
            # What made the weights is not there any more: the trusted rows are the data.
            cell = replace(cell, start=plain.train, rows="")
        antidotes = self.antidotes(plain) if self.submission.crosses else [""]
        for antidote in antidotes:
            made = replace(cell, antidote=antidote)
            yield replace(made, trusted=self.granted(self.submission, made))

    def granted(self, submission: Submission, cell: Cell) -> str:
        """Digest of the trusted rows that the cell is granted; empty where it asks for none."""
        if not submission.trusted:
            return ""
        rows = self.ground.trusted(submission.trusted, cell.antidote)
        # The rows of a poison that a teacher writes are those of its own run.
        own = cell.teacher if cell.antidote == cell.data.name else ""
        return digests.of_json([rows, own]) if own else rows

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
