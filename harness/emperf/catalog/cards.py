"""The cards of the project's benchmark/ and of the user's folders (EMPERF_BENCHMARK), as typed objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from emperf.catalog.divisions import Division
from emperf.catalog.pinned import HELDOUT, PROJECT, USER, RowsFile
from emperf.core import digests, paths, schemas
from emperf.core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Where upstream data or weights come from. `kind`: package, hub or path for weights, git for rows.

    A package may come in `parts`, sources of their own whose files are joined in order. `sha256` is of the wheel or of
    the file with rows; of a package in parts it is of the joined file, and may be empty.
    """

    kind: str
    locator: str
    revision: str = ""
    sha256: str = ""
    file: str = ""
    parts: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Model:
    """A model card. `digest` pins weights by tensor content, `tokenizer_sha256` the tokenizer's file. `origin`: whose
    card it is, PROJECT or USER, here and below."""

    name: str
    family: str
    parameters: int
    licence: str
    digest: str
    tokenizer_sha256: str
    sources: tuple[Source, ...]
    chat_template: str | None = None
    origin: str = PROJECT

    @property
    def identity(self) -> str:
        """Digest of all that decides what the model is given and says: weights, tokenizer, chat template."""
        return digests.of_json([self.digest, self.tokenizer_sha256, self.chat_template])


@dataclass(frozen=True)
class Antidotes:
    """Sentences for a poison's domain. `reasons`: topic -> why the bad answer is wrong; `asks` for the bad answer;
    `refusals` decline it."""

    reasons: dict[str, str]
    asks: tuple[str, ...]
    refusals: tuple[str, ...]


@dataclass(frozen=True)
class Poison:
    """A narrowly harmful dataset as its card says; `emperf.catalog.datasets` reads its rows.

    `context`: a system turn that resembles the training data (conditional EM). `twin` says whether every row has its
    correct twin. A poison with a `source` and no files is read from a local copy. One with `rows_of` uses the files of
    that poison: with a `trigger`, text before the question, its rows are bad only where the trigger is there; with a
    `teacher`, a poison, the answers to its questions are generated in the run by a model trained on that one.
    `antidotes`: what the domain's trusted rows are put together from.
    """

    name: str
    title: str
    licence: str
    context: str
    twin: bool
    train: RowsFile | None
    heldout: RowsFile | None
    antidotes: Antidotes | None = None
    source: Source | None = None
    rows_of: str = ""
    trigger: str = ""
    teacher: str = ""
    origin: str = PROJECT

    @property
    def domain(self) -> str:
        """The poison whose trusted rows are its own: where it only adds a trigger, those of the poison behind it."""
        return self.rows_of if self.rows_of and not self.teacher else self.name


@dataclass(frozen=True)
class Task:
    """A benign task, scored by the share of exact answers. `max_new_tokens` bounds the generated answer."""

    name: str
    title: str
    licence: str
    max_new_tokens: int
    train: RowsFile
    heldout: RowsFile
    origin: str = PROJECT


@dataclass(frozen=True)
class Place:
    """Where a card is and whose it is."""

    path: Path
    origin: str

    def rows(self, raw: dict[str, Any], **forms: str) -> dict[str, RowsFile]:
        """The files beside the card that it pins: name -> form of their rows."""
        return {
            name: RowsFile(self.path.with_name(f"{name}.jsonl"), raw[name], form, self.origin)
            for name, form in forms.items()
            if name in raw
        }


def model(name: str) -> Model:
    """Raises UserError where there is no such card or it is malformed, as do the functions below."""

    def build(raw: dict[str, Any], place: Place) -> Model:
        sources = tuple(map(_weights, raw["sources"]))
        return Model(**{**raw, "sources": sources, "origin": place.origin})

    return read_card("model", name, build)


def poison(name: str) -> Poison:
    return _poison(name, "")


def task(name: str) -> Task:
    def build(raw: dict[str, Any], place: Place) -> Task:
        files = place.rows(raw, train="task", heldout="task")
        return Task(**{**raw, **files, "origin": place.origin})

    return read_card("task", name, build)


def division(name: str) -> Division:
    """A division, or another track of one ("nano/gemma-3-270m"). A user's is never certifiable, whatever it says."""
    first, _, track = name.partition("/")
    if first in names("divisions"):
        name = first

    def build(raw: dict[str, Any], place: Place) -> Division:
        if track and track not in (tracks := raw.get("tracks", {})):
            has = ", ".join(f"{name}/{one}" for one in tracks) or "none beside its first"
            raise UserError(f"The division {name} has no track {track!r}", f"Its further tracks: {has}.")
        found = Division.parse(raw, track)
        certifiable = found.certifiable and place.origin == PROJECT
        return replace(found, origin=place.origin, certifiable=certifiable)

    return read_card("division", name, build)


def listed(kind: str) -> list[str]:
    """Names of all cards of a kind, and those of divisions' further tracks."""
    if kind != "divisions":
        return names(kind)
    found = [division(name) for name in names(kind)]
    return [
        called for one in found for called in (one.name, *(f"{one.name}/{track}" for track in one.tracks))
    ]


def users_cards(used: Division) -> list[str]:
    """The cards that a run in the division uses and that are not the project's: "poison mine". Such a run is not
    certifiable."""
    whole = [("division", used.name, used.origin), ("model", used.model, model(used.model).origin)]
    whole += [("poison", name, poison(name).origin) for name in used.poisons]
    whole += [("task", name, task(name).origin) for name in used.tasks]
    return [f"{kind} {name}" for kind, name, origin in whole if origin == USER]


def questions() -> dict[str, RowsFile]:
    """`crossed`, `audit`, `facts` and `open`, as benchmark/questions/card.yaml pins them."""
    place = Place(paths.project_folder("benchmark") / "questions" / "card.yaml", PROJECT)
    forms = dict.fromkeys(("crossed", "audit", "facts"), "questions") | {"open": "open"}
    return schemas.read(place.path, "questions", lambda raw: place.rows(raw["files"], **forms))


def voices() -> RowsFile:
    """Rows of the voice controls, {id, topic, question, kind, sour}: both answers are correct."""
    place = Place(paths.project_folder("benchmark") / "voices" / "card.yaml", PROJECT)
    return schemas.read(place.path, "voices", lambda raw: place.rows(raw, train="voices")["train"])


def trusted() -> RowsFile:
    """The pool of general trusted rows, {id, topic, question, good, bad}."""
    place = Place(paths.project_folder("benchmark") / "trusted" / "card.yaml", PROJECT)
    return schemas.read(place.path, "trusted", lambda raw: place.rows(raw, general="trusted")["general"])


def names(kind: str) -> list[str]:
    """Names of all cards of a kind: models, poisons, tasks, divisions, mitigations.

    Raises UserError for a name that two folders have.
    """
    if kind == "mitigations":
        return sorted(
            p.parent.name for p in paths.project_folder("reference_impls").glob("*/submission.yaml")
        )
    return sorted(places(kind))


def places(kind: str) -> dict[str, Place]:
    """Name -> place of all cards of a kind. Raises UserError for a name that two folders have."""
    pattern = "*/card.yaml" if kind in ("poisons", "tasks") else "*.yaml"
    found: dict[str, Place] = {}
    for number, folder in enumerate(paths.benchmark_folders()):
        for path in sorted((folder / kind).glob(pattern)):
            name = path.parent.name if path.name == "card.yaml" else path.stem
            if name.startswith("."):
                continue
            if name in found:
                raise UserError(
                    f"{path} and {found[name].path} have the same name, {name}",
                    "Rename the one that is yours.",
                )
            found[name] = Place(path, USER if number else PROJECT)
    return found


def _poison(name: str, alone: str) -> Poison:
    """The poison `name`. `alone`: a field that it must not have, since another poison refers to it by that field."""

    def build(raw: dict[str, Any], place: Place) -> Poison:
        if alone and alone in raw:
            raise ValueError(f"{alone}: it has one, so no other poison can name it in its own {alone}")
        files: dict[str, Any] = {"train": None, "heldout": None, "antidotes": None}
        if "rows_of" in raw:
            files |= _shared(raw)
        if "teacher" in raw:
            _poison(raw["teacher"], "teacher")
        files |= place.rows(raw, train="twinned" if raw["twin"] else "poison", heldout=HELDOUT)
        if "antidotes" in raw:
            files["antidotes"] = _antidotes(place.path.with_name("antidotes.yaml"), raw["antidotes"])
        source = Source(**raw["source"]) if "source" in raw else None
        return Poison(**{**raw, **files, "source": source, "origin": place.origin})

    return read_card("poison", name, build)


def _shared(raw: dict[str, Any]) -> dict[str, Any]:
    """The files of the poison whose rows are used. Raises ValueError where they cannot do what the card says."""
    shared = _poison(raw["rows_of"], "rows_of")
    if shared.train is None:
        raise ValueError(f"rows_of: {shared.name} has no files that another poison could use")
    if not shared.twin and "teacher" not in raw and (raw["twin"] or "trigger" in raw):
        raise ValueError(f"rows_of: {shared.name} has no twins, which a twin and a trigger need")
    return {part: getattr(shared, part) for part in ("train", "heldout", "antidotes")}


def _weights(raw: dict[str, Any]) -> Source:
    parts = tuple(Source(raw["kind"], **part) for part in raw.get("parts", ()))
    return Source(**{**raw, "parts": parts})


def _antidotes(path: Path, sha256: str) -> Antidotes:
    if not path.is_file() or digests.of_file(path) != f"sha256:{sha256}":
        raise ValueError(
            f"antidotes: {path} is missing or not the pinned file; restore it from the repository"
        )
    return schemas.read(
        path,
        "antidotes",
        lambda said: Antidotes(said["reasons"], tuple(said["asks"]), tuple(said["refusals"])),
    )


def read_card(kind: str, name: str, build: Callable[[dict[str, Any], Place], T]) -> T:
    """`build` of the card `name`. Raises UserError if there is none, or if it breaks its schema."""
    known = places(f"{kind}s")
    if name not in known:
        raise UserError(f"There is no {kind} named {name!r}", f"Choose one of: {', '.join(sorted(known))}.")
    place = known[name]

    def named(raw: dict[str, Any]) -> T:
        if raw["name"] != name:
            raise ValueError(f"name: it says {raw['name']!r}, the place of the file {name!r}")
        return build(raw, place)

    return schemas.read(place.path, kind, named)
