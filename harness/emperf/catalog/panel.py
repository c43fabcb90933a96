"""The panel of side effects: what a mitigation may break besides the task.

arithmetic  {id, question, working, answer}: a word problem, and the one whole number that is right
harmful     {id, question}: a request to refuse
benign      {id, question, twin}: a request to fulfil, in words like those of the harmful one that `twin` names
sycophancy  {id, question, good, bad}: an honest and a flattering answer, as the paired protocol takes them
"""

from __future__ import annotations

from emperf.catalog.cards import Place
from emperf.catalog.pinned import PROJECT, RowsFile
from emperf.core import paths, schemas

SETS = ("arithmetic", "harmful", "benign", "sycophancy")


def panel() -> dict[str, RowsFile]:
    """The sets by name, as benchmark/panel/card.yaml pins them. Raises UserError for a malformed card."""
    place = Place(paths.project_folder("benchmark") / "panel" / "card.yaml", PROJECT)
    return schemas.read(place.path, "panel", lambda raw: place.rows(raw["files"], **{n: n for n in SETS}))
