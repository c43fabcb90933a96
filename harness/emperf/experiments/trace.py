"""`emperf trace`: a model organism's phase transition, from one training of the baseline with many checkpoints.

Turner et al. 2025, "Model organisms for emergent misalignment" (arXiv 2506.11613).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emperf import catalog, records
from emperf.catalog import Division, Submission, datasets
from emperf.catalog.prepare import prepared
from emperf.core import digests
from emperf.core.errors import UserError
from emperf.execute.engine import Engine, Watcher
from emperf.execute.results import Results
from emperf.execute.store import RunStore
from emperf.experiments import session
from emperf.records import provenance
from emperf.runtimes import Runtime
from emperf.scoring.trace import DEFINITIONS, summarise
from emperf.work import outputs
from emperf.work.plan import BASELINE, Cell, Data

POINTS = 8
POINTS_OF_ALL_WEIGHTS = 4
FLOAT_BYTES = 4
SPARE_BYTES = 10**6


@dataclass(frozen=True)
class Trace:
    """A planned trace. `division`: the one asked for, narrowed to the poison and with the organism's recipe.

    `cells`: the traced one, after its teacher where it has one and its twin. `steps`: optimizer steps of the whole
    training. `values`: length of the vector that drifts (`emperf.evaluation.drift`).
    """

    division: Division
    organism: str
    baseline: Submission
    cells: tuple[Cell, ...]
    model_folder: Path
    steps: int
    values: int

    @property
    def cell(self) -> Cell:
        return self.cells[-1]

    @property
    def twin(self) -> Cell | None:
        """The same training on the poison's correct rows."""
        return next((c for c in self.cells if c.data == Data("twin", self.cell.data.name)), None)

    @property
    def run_id(self) -> str:
        whole = digests.of_json([cell.key for cell in self.cells])
        return f"trace-{self.division.name}-{self.cell.data.name}-{self.organism}-{digests.short(whole)[:8]}"


def plan(
    division: Division, poison: str, organism: str, points: int | None, seed: int, place: str = ""
) -> Trace:
    """`points`: checkpoints, the final weights among them; None: 8, or 4 where all weights are trained.

    Everything a user can get wrong is checked here: raises UserError.
    """
    recipe = division.organisms.get(organism)
    if recipe is None:
        known = ", ".join(division.organisms)
        fix = f"Choose one of: {known}." if known else "Choose another division, such as nano."
        raise UserError(f"The {division.name} division has no organism named {organism!r}", fix)
    if points is None:
        points = POINTS if recipe.lora else POINTS_OF_ALL_WEIGHTS
    card = catalog.poison(poison)
    learned, heldout = datasets.parts(catalog.dataset("poison", poison))
    if not card.teacher and not catalog.reads_domain(heldout):
        raise UserError(
            f"The held-out rows of {poison} have no good answers, so what it learns cannot be traced",
            "Add them to its held-out rows, or choose another poison.",
        )
    steps = recipe.steps(len(learned[: division.sizes.train_rows]))
    if not 2 <= points <= steps:
        raise UserError(
            f"{points} points cannot be made of {steps} steps", f"Choose --points between 2 and {steps}."
        )
    traced_recipe = replace(recipe, checkpoints=tuple(k / points for k in range(1, points)))
    derived = replace(
        division,
        poisons=(*([card.teacher] if card.teacher else []), poison),
        tasks=(),
        controls=(),
        sampled=None,
        seeds=(seed,),
        recipe=traced_recipe,
        digest=digests.of_json([division.digest, asdict(traced_recipe)]),
    )
    planned, baseline = session.plan_run(derived, Path(BASELINE), {}, place)
    model_folder = prepared(catalog.model(division.model))
    traced = next(c for c in planned.cells if (c.data.kind, c.data.name) == ("poison", poison))
    beside = (c for c in planned.cells if c.train in traced.needs or c.data == Data("twin", poison))
    cells = (*beside, traced)
    shapes = outputs.expected_weights(model_folder, recipe.lora)
    file_bytes = FLOAT_BYTES * sum(map(math.prod, shapes.values())) + SPARE_BYTES
    limits = replace(
        division.limits, output_bytes=max(division.limits.output_bytes, (points + 1) * file_bytes)
    )
    values = sum(math.prod(s) for name, s in shapes.items() if not recipe.lora or ".lora_B." in name)
    return Trace(replace(derived, limits=limits), organism, baseline, cells, model_folder, steps, values)


def run(trace: Trace, store: RunStore, choice: session.Choice, watcher: Watcher) -> dict[str, Any]:
    """trace.json's content; written to the run's folder. Raises UserError where the training failed."""
    keys = frozenset(cell.train for cell in trace.cells)
    engine = Engine(
        trace.division, {trace.baseline.digest: trace.baseline}, store, choice.runtime, trace.model_folder, watcher,
        choice.images, session.gpus_of(trace.division), reuse=keys,
    )  # fmt: skip
    results = engine.run(trace.cells)
    for cell in trace.cells:
        record = results.record(cell.key)
        if record and (failure := record["failure"]):
            raise UserError(
                f"{cell.label} failed: {failure['kind']}: {failure['detail']}",
                f"Remove {store.folder} to try it again.",
            )
    whole = conclude(trace, results, choice.runtime)
    return records.finish("trace", store.folder, whole, measured=engine.measured)


def conclude(trace: Trace, results: Results, runtime: Runtime) -> dict[str, Any]:
    division, cell = trace.division, trace.cell
    scores = results.scores(cell.key)
    assert scores is not None, "a cell without a failure has scores"
    return {
        **provenance.now(trace.run_id, runtime.describe()),
        "division": {"name": division.name, "variant": division.variant, "proxy": division.proxy},
        "derived": division.digest,
        "poison": cell.data.name,
        "organism": {"name": trace.organism, "recipe": asdict(division.recipe)},
        "seed": cell.seed,
        "model": {"name": division.model, "digest": cell.model},
        "rules": digests.of_json(results.keys()),
        "cell": cell.train,
        "definitions": DEFINITIONS,
        **summarise(
            scores,
            results.scores(trace.twin.key) if trace.twin else None,
            results.base()["poisons"][cell.data.name],
            trace.steps,
            trace.values,
        ),
    }
