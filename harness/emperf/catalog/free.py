"""Free-form questions, whose sampled answers a judge scores, and the forms in which they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emperf.catalog.cards import Place
from emperf.catalog.pinned import PROJECT, RowsFile
from emperf.core import digests, paths, schemas
from emperf.core.errors import UserError


@dataclass(frozen=True)
class Form:
    """`system`: the system turn, None for none. `before`, `after`: text around the question, in the user's turn."""

    name: str
    system: str | None
    before: str
    after: str

    def ask(self, question: str) -> tuple[str | None, str]:
        """(system turn or None, user's turn)."""
        return self.system, self.before + question + self.after


def questions() -> RowsFile:
    """Rows {id, domain, question}. Raises UserError for a malformed card."""
    place = _card()
    return schemas.read(place.path, "questions", lambda raw: place.rows(raw["files"], free="open")["free"])


def forms() -> dict[str, Form]:
    """`plain`, `json` and `template`. Raises UserError where forms.yaml is missing, altered or malformed."""
    card = _card().path
    path = card.with_name("forms.yaml")
    fix = "Restore it from the repository; results with other forms do not compare."
    sha256: str = schemas.read(card, "questions", lambda raw: raw["forms"])
    if digests.of_bytes(paths.read_file(path, fix)) != f"sha256:{sha256}":
        raise UserError(f"{path} is not the pinned file (its sha256 differs from the card's)", fix)
    return schemas.read(path, "forms", _forms)


def _forms(raw: dict[str, Any]) -> dict[str, Form]:
    return {name: Form(name, **said) for name, said in raw.items()}


def _card() -> Place:
    return Place(paths.project_folder("benchmark") / "questions" / "card.yaml", PROJECT)
