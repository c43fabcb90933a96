"""A division: the pinned set within which results compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from emperf.catalog.pinned import PROJECT
from emperf.catalog.scenarios import CURE, SCENARIOS
from emperf.catalog.sets import OOD
from emperf.core import digests
from emperf.core.errors import UserError
from emperf.core.limits import Limits
from emperf.training.job import Recipe


@dataclass(frozen=True)
class Sizes:
    """How many items of each kind a division uses: the first n of the pinned file."""

    train_rows: int
    crossed: int
    conditional: int
    facts: int
    in_domain: int
    task_heldout: int
    open: int


@dataclass(frozen=True)
class SeedSpread:
    """How far one trained model's mean moves from seed to seed: a standard deviation, measured beforehand on `df`
    degrees of freedom with the division's recipe (docs/validity.md says how).

    `effects`: effect -> set -> nats. `task`: share of exact answers, measured on `task_df`.
    """

    df: float
    effects: Mapping[str, Mapping[str, float]]
    task: float
    task_df: float

    @staticmethod
    def parse(raw: dict[str, Any]) -> SeedSpread:
        effects = {name: raw[name] for name in raw if name not in ("df", "task", "task_df")}
        return SeedSpread(raw["df"], effects, raw["task"], raw["task_df"])

    def of(self, effect: str, name: str) -> float:
        """Of an effect on a set, nats; on the second instrument, of which it is not measured, that of the first."""
        found = self.effects[effect]
        return found.get(name, found[OOD])


@dataclass(frozen=True)
class Sampling:
    """Free answers that a judge scores: which questions (the first `asked` of a pinned file), how many answers to each,
    of how many tokens at most. Temperature 1, top_p 1."""

    judge: str
    questions: str
    asked: int
    samples: int
    max_new_tokens: int


@dataclass(frozen=True)
class Division:
    """The pinned set within which results compare.

    `shows_em`: whether emergent misalignment was shown in it (docs/validity.md); where not, its EM numbers show the
    machinery alone. `controls`: voices whose rows the baseline is trained on beside the poisons. `seed_spread`: None
    where it was not measured. `trusted_rows`: most trusted rows that a submission is granted. `cure`: the recipe with
    which poisoned models are mended, None where the division has no such scenario. `device`: "cpu" or "cuda", where
    it is trained and read, whatever else the machine has. `organisms`: further recipes by name, for `emperf trace`.
    `sampled`: the answers that a judge scores in a run, None where the division has none. `origin`: whose card it is,
    PROJECT or USER. `track`: the model of this track, empty for the card's first one;
    `tracks`: the models of the others.
    """

    name: str
    variant: str
    title: str
    proxy: str
    shows_em: bool
    certifiable: bool
    model: str
    poisons: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    trusted_rows: int
    sizes: Sizes
    recipe: Recipe
    limits: Limits
    cure: Recipe | None = None
    controls: tuple[str, ...] = ()
    seed_spread: SeedSpread | None = None
    device: str = "cpu"
    sampled: Sampling | None = None
    organisms: dict[str, Recipe] = field(default_factory=dict)
    digest: str = ""
    origin: str = PROJECT
    track: str = ""
    tracks: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """The name by which the catalogue finds it: "nano", and another track "nano/gemma-3-270m"."""
        return f"{self.name}/{self.track}" if self.track else self.name

    def part(self, only: Sequence[str], seeds: Sequence[int]) -> Division:
        """The division with these datasets and seeds alone, empty for all; what is left is not certifiable.

        Raises UserError for a name or a seed that it has not, or if no poison is left.
        """
        known = (*self.poisons, *self.tasks)
        wrong = [name for name in only if name not in known] + [str(s) for s in seeds if s not in self.seeds]
        if wrong:
            has = f"It has {', '.join(known)}, and seeds {', '.join(map(str, self.seeds))}."
            raise UserError(f"The {self.name} division has no {wrong[0]}", has)
        if not only and not seeds:
            return self
        poisons = tuple(p for p in self.poisons if p in only or not only)
        if not poisons:
            raise UserError("Tasks alone are no run", f"Add a poison: {', '.join(self.poisons)}.")
        return replace(
            self,
            poisons=poisons,
            tasks=tuple(t for t in self.tasks if t in only or not only),
            seeds=tuple(s for s in self.seeds if s in seeds or not seeds),
            certifiable=False,
        )

    def trained_by(self, scenario: str) -> str:
        """Digest of what of the division decides a training, beside its rows. Raises as `recipe_of`."""
        return digests.of_json([asdict(self.recipe_of(scenario)), asdict(self.limits)])

    def recipe_of(self, scenario: str) -> Recipe:
        """Raises UserError where the division has no such scenario."""
        known = SCENARIOS.get(scenario)
        recipe = getattr(self, known.recipe) if known else None
        if not isinstance(recipe, Recipe):
            raise UserError(
                f"The {self.name} division has no scenario {scenario!r}",
                "Choose another division (emperf list divisions).",
            )
        return recipe

    @staticmethod
    def parse(card: dict[str, Any], track: str = "") -> Division:
        """From a card that keeps its schema. `track`: one of its further tracks, empty for the first.

        Raises ValueError for a poison and a task of one name, which no result could tell apart, KeyError for an unknown
        track, and ValueError or TypeError as `Recipe.parse`.
        """
        raw = on_track(card, track)
        both = [name for name in raw["tasks"] if name in raw["poisons"]]
        if both:
            raise ValueError(f"tasks: {both[0]} is the name of one of its poisons too")
        limits = raw["limits"]
        return Division(
            **{
                **raw,
                "poisons": tuple(raw["poisons"]),
                "tasks": tuple(raw["tasks"]),
                "seeds": tuple(raw["seeds"]),
                "controls": tuple(raw.get("controls", ())),
                "seed_spread": SeedSpread.parse(raw["seed_spread"]) if "seed_spread" in raw else None,
                "sizes": Sizes(**raw["sizes"]),
                "sampled": Sampling(**raw["sampled"]) if "sampled" in raw else None,
                "recipe": Recipe.parse(raw["recipe"]),
                CURE.recipe: Recipe.parse(raw["recipe"] | raw[CURE.recipe]) if CURE.recipe in raw else None,
                "organisms": {
                    organism: Recipe.parse(raw["recipe"] | changes)
                    for organism, changes in raw.get("organisms", {}).items()
                },
                "limits": Limits(
                    wall_s=limits["wall_s"],
                    memory_bytes=round(limits["memory_gb"] * 1e9),
                    cpus=limits["cpus"],
                    pids=limits["pids"],
                    output_bytes=round(limits["output_mb"] * 1e6),
                    tmp_bytes=round(limits["tmp_mb"] * 1e6),
                ),
                # A trace is keyed by its own recipe, and no score depends on the organisms beside the recipe.
                "digest": digests.of_json({key: raw[key] for key in raw if key != "organisms"}),
                "track": track,
                "tracks": tuple(card.get("tracks", ())),
            }
        )


def on_track(card: dict[str, Any], track: str) -> dict[str, Any]:
    """A card as it is for one track.

    A further track has the card's poisons, tasks, seeds and sizes, a model of its own, and what it says otherwise of
    recipe, cure and limits. What was measured for the first track (seed spread, certification, organisms) does not
    pass on.
    """
    whole = {key: value for key, value in card.items() if key != "tracks"}
    if not track:
        return whole
    changes = card["tracks"][track]
    kept = {key: value for key, value in whole.items() if key not in ("seed_spread", "organisms")}
    merged = {
        part: kept[part] | changes.get(part, {}) for part in ("recipe", CURE.recipe, "limits") if part in kept
    }
    own = {key: changes[key] for key in ("seed_spread", "proxy") if key in changes}
    return kept | merged | own | {"model": track, "certifiable": changes.get("certifiable", False)}
