"""Adapters that somebody already has, put into the store: a training whose weights came from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save

from emperf import catalog
from emperf.catalog import Model, adapters
from emperf.catalog.adapters import UNIT, Adapter, Tensors
from emperf.core import digests
from emperf.core.errors import UserError
from emperf.core.files import write_json
from emperf.execute.store import ADAPTER, UnitStore
from emperf.scoring.evaluation import BASE, CONTROL, SUBJECT
from emperf.training.job import linear_weights

RANDOM = "random"


@dataclass(frozen=True)
class Subject:
    """A model to measure. `train`: the key of its weights in the store, empty for the base model. `digest`: of its
    weights. `source`: where they are from, as the user named it."""

    name: str
    role: str
    train: str
    digest: str
    source: str


def base_of(found: Adapter) -> Model:
    """The model card of an adapter's base, by the name that the adapter gives it. Raises UserError if there is none."""
    cards = [catalog.model(name) for name in catalog.names("models")]
    for model in cards:
        if found.base in (model.name, *(source.locator for source in model.sources)):
            return model
    raise UserError(
        f"{found.folder} is an adapter for {found.base or 'a model that it does not name'}, of which there is no card",
        "Add its base (emperf add model OWNER/NAME), and name the card with --base.",
    )


def take(units: UnitStore, model: Model, folder: Path, name: str, role: str, source: Path) -> Subject:
    """The adapter in `source`, in the store. `folder`: the base model's. Raises UserError where it does not fit."""
    found = adapters.adapter(source).tensors(linear_weights(folder, UNIT))
    return keep(units, model, found, name, role, str(source))


def keep(units: UnitStore, model: Model, tensors: Tensors, name: str, role: str, source: str) -> Subject:
    data = save({key: t.contiguous() for key, t in sorted(tensors.items())})
    digest = digests.of_bytes(data)
    train = digests.short(digests.of_json(["imported", model.identity, digest]))
    if units.trained(train) is None:
        with units.writing(train) as place:
            (place / ADAPTER).write_bytes(data)
            known: dict[str, Any] = {"record": None, "losses": [], "gradient_norms": []}
            write_json(place / "train.json", {"cell": None, "files": {ADAPTER: digest}, **known})
    return Subject(name, role, train, digest, source)


def random_control(units: UnitStore, model: Model, of: Subject) -> Subject:
    """An adapter with the norms of another and random directions."""
    from safetensors.torch import load_file

    weights = units.weights(of.train)
    assert weights is not None, "it was put into the store before"
    drawn = adapters.random_like(load_file(weights), seed=0)
    return keep(units, model, drawn, f"{RANDOM} like {of.name}", CONTROL, "random directions, the same norms")


def gather(
    units: UnitStore,
    model: Model,
    folder: Path,
    targets: Mapping[str, Path],
    controls: Mapping[str, Path],
    *,
    random: bool,
) -> list[Subject]:
    """Base, subjects and controls. Raises UserError for an adapter that cannot be read, before anything is measured."""
    found = [Subject(model.name, BASE, "", model.digest, "the base model")]
    found += [take(units, model, folder, name, SUBJECT, source) for name, source in targets.items()]
    found += [take(units, model, folder, name, CONTROL, source) for name, source in controls.items()]
    if random:
        found += [random_control(units, model, one) for one in found if one.role == SUBJECT]
    return found


def named(folders: list[Path]) -> dict[str, Path]:
    """A name for each folder: its own, with its parent's where two have the same."""
    names = [folder.resolve().name for folder in folders]
    return {
        name if names.count(name) == 1 else f"{folder.resolve().parent.name}/{name}": folder
        for name, folder in zip(names, folders, strict=True)
    }
