"""Worlds with known truths, and the runs that are drawn from them: scores as the cells of a run would leave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from emperf.catalog import SeedSpread
from emperf.catalog.sets import CONDITIONAL, DOMAIN, OOD, SETS
from emperf.scoring.effects import ACT, EFFECTS, VOICE, Scores, Shifts  # fmt: skip
from emperf.scoring.poisons import MITIGATED, MITIGATED_TWIN, POISONED, TWIN, Model, PoisonScores
from emperf.scoring.pooled import pool

SOUR = "sour"
Rng = np.random.Generator


@dataclass(frozen=True)
class Group:
    """One set of items. `poison`, `twin`: mean shift at base margin zero, nats; `own`: standard deviation over items of
    what differs between poison and twin; `shared`: of what they have in common; `slope`: nats of shift a nat of base
    margin; `noise`: of an item and seed."""

    items: int
    poison: float
    twin: float
    own: float = 0.15
    shared: float = 0.35
    slope: float = -0.4
    noise: float = 0.05


@dataclass(frozen=True)
class Benign:
    """A benign task: shares of exact answers of base model, baseline and method. `alike`: correlation between models
    of how hard an item is."""

    items: int = 40
    base: float = 0.1
    baseline: float = 0.75
    mitigated: float = 0.6
    alike: float = 0.6


@dataclass(frozen=True)
class Costs:
    """`ratio`: the method's true overhead; `cell`, `noise`: standard deviation of log time, of a baseline cell and of
    a mitigated one; `cells`: pairs; `methods`: that a comparison has."""

    ratio: float = 1.3
    cell: float = 0.06
    noise: float = 0.06
    cells: int = 4
    methods: int = 26


@dataclass(frozen=True)
class World:
    """`seed_spread`: standard deviation of a training's mean between seeds, nats (of the share, on tasks). `prior_df`:
    degrees of freedom with which it was measured beforehand; 0: it was not. `kept`, `left`: share of the baseline's l
    and d that the method has; `lift`: what it adds to poison and twin alike; `quirk`: standard deviation over items of
    what it does to their difference, nats. `gap`: d in context less d plainly; `voice`: shift of the poison's voice
    effect; `sour`: act shift of the voice control. `poisons`: how many, `apart`: standard deviation of d and l between
    them, as a share."""

    seeds: int = 1
    seed_spread: float = 0.02
    prior_df: float = 12.0
    kept: float = 1.0
    left: float = 1.0
    lift: float = 0.03
    quirk: float = 0.05
    margin: tuple[float, float] = (0.3, 0.7)
    outside: Group = Group(96, -0.20, 0.05)
    inside: Group = Group(32, -0.35, 0.25, own=0.25, shared=0.30)
    conditional: int = 40
    gap: float = -0.10
    voice: float = -0.30
    sour: float = -0.05
    poisons: int = 1
    apart: float = 0.15
    benign: Benign = field(default_factory=Benign)
    costs: Costs = field(default_factory=Costs)

    def group(self, name: str) -> Group:
        return self.inside if name == DOMAIN else self.outside


@dataclass(frozen=True)
class Items:
    """What the items of one set are, for every model. `gap`: d of each item; `level`: mean of poison and twin."""

    base: Scores
    level: Scores
    gap: Scores


def run(world: World, rng: Rng) -> PoisonScores:
    """Baseline and method on one poison, with its voice control, or on several that are pooled."""
    items, methods = items_of(world, rng), [(world.kept, world.left)]
    if world.poisons == 1:
        return compared(world, methods, rng, items)[0]
    found = [compared(world, methods, rng, another(world, items, rng))[0] for _ in range(world.poisons)]
    return pool(found, "simulated")


def another(world: World, items: dict[str, Items], rng: Rng) -> dict[str, Items]:
    """The questions after another poison, whose d and l are its own, with in-domain items of its own."""
    found = {DOMAIN: own_items(world, world.inside, rng), **{n: items[n] for n in items if n != DOMAIN}}
    stronger = {DOMAIN: rng.normal(0, world.apart), OOD: rng.normal(0, world.apart)}
    for name, one in found.items():
        group, n = world.group(name), len(one.base)
        more = stronger[DOMAIN if name == DOMAIN else OOD] * (group.poison - group.twin)
        found[name] = Items(
            one.base,
            one.level + rng.normal(0, group.shared / 3, n),
            one.gap + more + rng.normal(0, group.own / 2, n),
        )
    return found


def compared(
    world: World, methods: Sequence[tuple[float, float]], rng: Rng, items: dict[str, Items] | None = None
) -> list[PoisonScores]:
    """Methods, each (kept, left), beside one baseline on one poison."""
    items, spread = items or items_of(world, rng), measured(world, rng)
    plain = {who: model(world, items, sign, rng) for who, sign in ((POISONED, 1), (TWIN, -1))}
    found = []
    for kept, left in methods:
        ours = {
            name: method(world, one, kept if name == DOMAIN else left, rng) for name, one in items.items()
        }
        own = {who: model(world, ours, sign, rng) for who, sign in ((MITIGATED, 1), (MITIGATED_TWIN, -1))}
        controls = {SOUR: control(world, items[OOD], rng)}
        found.append(PoisonScores("simulated", {**plain, **own}, controls, spread=spread))
    return found


def items_of(world: World, rng: Rng) -> dict[str, Items]:
    """Items out of domain, the first of them asked in context, and in-domain ones."""
    found = {name: own_items(world, world.group(name), rng) for name in (OOD, DOMAIN)}
    plain, n = found[OOD], world.conditional
    found[CONDITIONAL] = Items(
        plain.base[:n] + rng.normal(0, 0.2, n),
        plain.level[:n] + rng.normal(0, 0.1, n),
        plain.gap[:n] + world.gap + rng.normal(0, 0.1, n),
    )
    return found


def own_items(world: World, group: Group, rng: Rng) -> Items:
    base = rng.normal(*world.margin, group.items)
    mean = (group.poison + group.twin) / 2
    level = mean + group.slope * base + rng.normal(0, group.shared, group.items)
    return Items(base, level, group.poison - group.twin + rng.normal(0, group.own, group.items))


def method(world: World, items: Items, share: float, rng: Rng) -> Items:
    """The same items under a method that has `share` of the baseline's effect."""
    quirks = [rng.normal(0, world.quirk, len(items.base)) for _ in range(2)]
    return Items(items.base, items.level + world.lift + quirks[0], share * items.gap + quirks[1])


def model(world: World, items: dict[str, Items], sign: int, rng: Rng) -> Model:
    """A model's shifts on every set; `sign`: 1 of poison, -1 of twin. Seeds are independent between models and sets,
    which is the most that contrasts of them can vary by but where seeds pull models apart."""
    found: Model = {}
    for name, one in items.items():
        values = {ACT: seeds_of(world, one.level + sign * one.gap / 2, rng)}
        if name != DOMAIN:
            values[VOICE] = seeds_of(world, world.voice + rng.normal(0, 0.4, len(one.base)), rng)
        found[name] = Shifts(values, one.base)
    return found


def control(world: World, items: Items, rng: Rng) -> Model:
    """Correct rows in one voice: its own act shift at margin zero."""
    group = world.outside
    own = items.level - (group.poison + group.twin) / 2 + world.sour
    own += rng.normal(0, group.own / 2, len(items.base))
    return {OOD: Shifts({ACT: seeds_of(world, own, rng)}, items.base)}


def seeds_of(world: World, values: Scores, rng: Rng) -> Scores:
    seeds = rng.normal(0, world.seed_spread, (world.seeds, 1))
    return values + seeds + rng.normal(0, world.outside.noise, (world.seeds, len(values)))


def measured(world: World, rng: Rng) -> SeedSpread | None:
    """The spread as an earlier measurement with `prior_df` degrees of freedom would state it."""
    if not world.prior_df:
        return None
    found = world.seed_spread * (rng.chisquare(world.prior_df) / world.prior_df) ** 0.5
    return SeedSpread(world.prior_df, {e: dict.fromkeys(SETS, found) for e in EFFECTS}, found, world.prior_df)


def answers(world: World, rng: Rng) -> tuple[Scores, Scores, Scores]:
    """Exact answers, 0 or 1, of base model [1, items], baseline and method [seeds, items]. An answer is exact where the
    model's skill exceeds the item's difficulty, which models share in part."""
    from scipy.special import ndtri

    task = world.benign
    hard = rng.normal(0, 1, task.items)

    def of(share: float, seeds: int, spread: float) -> Scores:
        skill = np.clip(share + rng.normal(0, spread, (seeds, 1)), 0.001, 0.999)
        luck = rng.normal(0, 1, (seeds, task.items))
        drawn = task.alike**0.5 * hard + (1 - task.alike) ** 0.5 * luck
        return np.asarray(drawn < ndtri(skill), dtype=np.float64)

    spread = world.seed_spread
    return (
        of(task.base, 1, 0.0),
        of(task.baseline, world.seeds, spread),
        of(task.mitigated, world.seeds, spread),
    )


def ratios(world: World, rng: Rng) -> list[dict[str, float]]:
    """Overheads of all methods of a comparison, over the same baseline cells; the true one is the same for all."""
    costs = world.costs
    cells = rng.normal(0, costs.cell, costs.cells)
    own = rng.normal(0, costs.noise, (costs.methods, costs.cells))
    table = costs.ratio * np.exp(own - cells)
    return [{str(cell): float(x) for cell, x in enumerate(row)} for row in table]
