"""`emperf add division`: a user's set of model, poisons and tasks, with the recipe of a division that is there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emperf.catalog import cards, datasets
from emperf.catalog.add_data import Added, as_yaml, free_place, name_of, title_of, writing
from emperf.catalog.divisions import Division
from emperf.core import schemas
from emperf.core.errors import UserError

Count = tuple[str, int, int]
PROXY = (
    "Whether these poisons make this model emergently misaligned has not been shown. EM numbers here say which of "
    "given answers the model leans to."
)


def add_division(
    into: Path,
    poisons: Sequence[str],
    tasks: Sequence[str] = (),
    *,
    name: str = "",
    model: str = "",
    like: str = "smoke",
) -> Added:
    """Raises UserError for a name that is not there, or taken, or for rows that cannot be read.

    `tasks`, `model`: those of `like` where none are given. `name`: that of the first poison.
    """
    if not poisons:
        raise UserError("A division has at least one poison", "Name it: --poison NAME (emperf list poisons).")
    name = name_of(Path(f"{poisons[0]}.yaml"), name)
    free_place(into, "divisions", name)
    pinned = cards.division(like)
    raw = schemas.read(cards.places("divisions")[like].path, "division", lambda found: found)
    model = cards.model(model or pinned.model).name
    tasks = tasks or pinned.tasks
    counts = row_counts(poisons, tasks, pinned.controls)
    sizes = sizes_for(pinned, counts)
    raw |= {
        "name": name, "title": title_of(name), "proxy": PROXY, "shows_em": False, "certifiable": False,
        "model": model, "poisons": list(poisons), "tasks": list(tasks), "sizes": sizes,
    }  # fmt: skip
    alike = model == pinned.model and sizes["train_rows"] == pinned.sizes.train_rows
    if not alike:
        raw.pop("seed_spread", None)
    if model != pinned.model:
        raw.pop("organisms", None)
    # A judge is chosen, not taken over.
    raw.pop("sampled", None)
    check(raw)
    path = into / "divisions" / f"{name}.yaml"
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f".partial-{name}.yaml")
        partial.write_text(as_yaml(raw), encoding="utf-8")
        partial.rename(path)
    run = f"emperf run kl --benchmark {shlex.quote(str(into))} --division {name}"
    return Added(name, path, (*said_of(raw, pinned, counts, alike, path), f"Next: {run}"))


def check(raw: dict[str, Any]) -> None:
    """Raises UserError where the parts make no division."""
    try:
        schemas.check_written("division", raw)
        Division.parse(raw)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"These make no division: {error}", "See spec/schemas/division.schema.json."
        ) from None


def row_counts(poisons: Sequence[str], tasks: Sequence[str], controls: Sequence[str]) -> list[Count]:
    """(kind, rows to train on, held-out rows) of each; the last is 0 where nothing is read of them."""
    found = []
    named = [("poison", name) for name in poisons] + [("task", name) for name in tasks]
    for kind, name in [*named, *(("control", voice) for voice in controls)]:
        train, held = datasets.parts(datasets.dataset(kind, name))
        read = kind == "task" or datasets.reads_domain(held)
        found.append((kind, len(train), len(held) if read else 0))
    return found


def sizes_for(pinned: Division, counts: Sequence[Count]) -> dict[str, int]:
    """The division's sizes, none above what there is. Where the rows suffice for training and for the trusted rows of a
    cure, some are left for these."""
    fewest = min(train for _, train, _ in counts)
    poison = min(train for kind, train, _ in counts if kind == "poison")
    spared = poison - pinned.trusted_rows
    most = min(fewest, spared) if 2 * spared >= poison else fewest
    in_domain = [held for kind, _, held in counts if kind == "poison" and held]
    on_tasks = [held for kind, _, held in counts if kind == "task"]
    sizes = pinned.sizes
    return vars(sizes) | {
        "train_rows": min(sizes.train_rows, most),
        "in_domain": min([sizes.in_domain, *in_domain]),
        "task_heldout": min([sizes.task_heldout, *on_tasks]),
    }


def said_of(
    raw: dict[str, Any], pinned: Division, counts: Sequence[Count], alike: bool, path: Path
) -> list[str]:
    named = f"{raw['model']}; {', '.join(raw['poisons'])}; {', '.join(raw['tasks'])}"
    said = [f"Added division {raw['name']}: {named} ({path}). The recipe is that of {pinned.name}."]
    fewer = [
        f"{size} {raw['sizes'][size]} for {getattr(pinned.sizes, size)}"
        for size in ("train_rows", "in_domain", "task_heldout")
        if raw["sizes"][size] != getattr(pinned.sizes, size)
    ]
    if fewer:
        said.append(f"There are fewer rows than there: {', '.join(fewer)}.")
    left = min(train for kind, train, _ in counts if kind == "poison") - raw["sizes"]["train_rows"]
    if raw["trusted_rows"] > left:
        said.append(f"Cures that ask for rows of a poison's domain can have {left} at most.")
    if not alike and pinned.seed_spread:
        said.append(
            "How far a mean moves from seed to seed is not known here; list several seeds in the card."
        )
    said.append("Results in it are not certifiable: it is yours.")
    return said
