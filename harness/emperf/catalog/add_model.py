"""`emperf add model`: a model of one's own, from the hub or from a folder, as a card, and made ready for use."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from emperf import catalog
from emperf.catalog import Model, Source, hub, templates
from emperf.catalog.convert import convert
from emperf.catalog.prepare import TEMPLATE, digest_of, scratch_folder, set_template, settle
from emperf.core import schemas
from emperf.core.errors import UserError

HEADER = "# Written by `emperf add model`. Digests are of what `emperf prepare` makes of the source.\n"
UNKNOWN = "not stated"


def add_model(
    locator: str,
    revision: str | None = None,
    name: str | None = None,
    into: Path = Path("mine"),
    say: Callable[[str], None] = print,
) -> Path:
    """Fetch the model that `locator` names (a folder, or a repository of the hub), make it ready, write its card below
    `into`; the card's path.

    A template that the model lacks, or that cannot show a system turn, is put into the card. Raises UserError, and then
    nothing is written.
    """
    local = Path(locator).expanduser()
    named = name or name_from(local.resolve().name if local.is_dir() else locator)
    card = into / "models" / f"{named}.yaml"
    refuse_name(named, card)
    place, source = find(locator, local, revision)
    say(f"Preparing {named} from {source.kind} {source.locator} {source.revision}".rstrip())
    with scratch_folder() as scratch:
        convert(place, scratch)
        template = pin_template(scratch)
        raw = describe(named, scratch, place, source, template)
        model = Model(**{**raw, "sources": (source,)})
        settle(model, source, scratch, say)
    card.parent.mkdir(parents=True, exist_ok=True)
    card.write_text(
        HEADER + yaml.dump(raw, Dumper=Readable, sort_keys=False, allow_unicode=True, width=120),
        encoding="utf-8",
    )
    return card


def name_from(locator: str) -> str:
    """A card's name for a folder or a repository: its last part, lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", locator.rstrip("/").rpartition("/")[2].lower()).strip("-") or "model"


def refuse_name(name: str, card: Path) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise UserError(
            f"{name!r} is no name for a card", "Use lower-case letters, digits and hyphens (--name NAME)."
        )
    if card.exists():
        raise UserError(f"{card} exists", "Delete it, or give another name: --name NAME.")
    if name in catalog.names("models"):
        raise UserError(f"There is a model {name} already", "Give another name: --name NAME.")


def find(locator: str, local: Path, revision: str | None) -> tuple[Path, Source]:
    """(folder to convert, what the card says of where it is from)."""
    if local.exists():
        if revision:
            raise UserError(f"{local} is a folder, which has no revisions", "Leave --revision out.")
        return local, Source("path", str(local.resolve()))
    if locator.startswith((".", "/", "~")) or locator.count("/") > 1:
        raise UserError(f"There is no folder {locator}", "Give a folder, or OWNER/MODEL of the model hub.")
    commit = hub.resolve(locator, revision)
    return hub.fetch(locator, commit), Source("hub", locator, commit)


def pin_template(folder: Path) -> str:
    """The chat template for the card, laid down in the prepared folder."""
    from transformers import AutoTokenizer

    template = templates.fitting(AutoTokenizer.from_pretrained(folder, local_files_only=True))
    set_template(folder, template)
    return (folder / TEMPLATE).read_text(encoding="utf-8")


def describe(name: str, folder: Path, origin: Path, source: Source, template: str) -> dict[str, Any]:
    """The card. Raises UserError where it breaks the schema."""
    from safetensors import safe_open
    from transformers import AutoConfig

    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118
    weights, tokenizer = digest_of(folder)
    where = {"kind": source.kind, "locator": source.locator, "revision": source.revision}
    raw = {
        "name": name,
        "family": AutoConfig.from_pretrained(folder, local_files_only=True).model_type,
        "parameters": sum(map(count, shapes)),
        "licence": licence(origin),
        "digest": weights,
        "tokenizer_sha256": tokenizer.removeprefix("sha256:"),
        "chat_template": template,
        "sources": [{key: value for key, value in where.items() if value}],
    }
    try:
        schemas.check("model", raw)
    except ValueError as error:
        raise UserError(f"No card can be made of {source.locator} ({error})", "Report this.") from None
    return raw


def count(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def licence(origin: Path) -> str:
    """As the front matter of the model's README.md has it."""
    page = origin / "README.md"
    if not page.is_file():
        return UNKNOWN
    parts = re.match(r"---\n(.*?)\n---", page.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        said = yaml.safe_load(parts[1]) if parts else None
    except yaml.YAMLError:
        return UNKNOWN
    if not isinstance(said, dict):
        return UNKNOWN
    found = said.get("license_name") or said.get("license")
    return str(found[0] if isinstance(found, list) and found else found or UNKNOWN)


class Readable(yaml.SafeDumper):
    """Text of several lines as a block, not as one quoted line."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Readable.add_representer(str, _block)
