"""`emperf new`: a mitigation folder that runs as it is, to be changed into an idea of one's own."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from emperf import catalog
from emperf.core.errors import UserError

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
TAKEN = {"Mitigation", "Step", "Tensor"}

MITIGATION = '''"""$title."""

from torch import Tensor

from emperf.training import Mitigation, Step


class $cls(Mitigation):
    """Penalise how far each token's logits drift from the base model's."""

    weight: float = 0.1

    def loss(self, step: Step) -> Tensor:
        drift = step.logits - step.base_logits
        # A shift of all logits by the same amount changes no probability.
        centred = drift - drift.mean(-1, keepdim=True)
        return step.task_loss + self.weight * centred.square().mean()
'''

SUBMISSION = """name: $name
title: $title
submitter: your name
scenario: prevent
mitigation: mitigation.py:$cls
source: A penalty on the drift of logits, made by `emperf new`; say here what yours comes from.
needs: [base model forward pass]
parameters:
  weight:
    type: float
    default: 0.1
    min: 0.0
    max: 100.0
    help: Weight of the mean squared drift of centred logits
"""

README = """# $name

An EMPerf mitigation. `mitigation.py` has the method, `submission.yaml` its parameters with their bounds.

    emperf check $place                        # does it keep the contract, does it do anything
    emperf run $place                          # against the baseline, in the smoke division
    emperf run $place --set weight=0.5         # with another value
    emperf report RUN                          # the scorecard again, by the run's id

Next:

1. Write your idea into `mitigation.py`. Override any of `prepare_data`, `prepare_model`, `train`, `loss`, `after_step`
   and `finish` (`emperf.training.Mitigation` says what each is given). A class field with a default is a
   parameter: give it bounds in `submission.yaml`, under the same name.
2. Run it. A changed folder is a new submission. The baseline is trained again beside it, for a fair time; its scores
   are kept.
3. Read the scorecard. Does selective removal lie above zero? Is the learning kept? What does it spoil and cost?
4. Fill in `title`, `submitter`, `source` and `needs` before you show results to others.
"""


def new(name: str, folder: Path) -> Path:
    """Make `folder`/`name`; returns it. Raises UserError for a bad name or a place that is taken."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is no name for a mitigation", "Use lower-case letters, digits and hyphens: my-idea."
        )
    if name in catalog.names("mitigations"):
        raise UserError(f"{name} is a reference mitigation's name", "Choose another one.")
    cls = "".join(part.capitalize() for part in name.split("-"))
    if keyword.iskeyword(cls) or cls in TAKEN:
        raise UserError(f"{name} would make a class named {cls}, which is taken", "Choose another name.")
    place = folder / name
    if place.exists():
        raise UserError(f"{place} is there already", "Choose another name, or remove it.")
    values = {"name": name, "cls": cls, "title": name.replace("-", " ").capitalize(), "place": f"./{name}"}
    try:
        place.mkdir(parents=True)
        for file, text in {
            "mitigation.py": MITIGATION,
            "submission.yaml": SUBMISSION,
            "README.md": README,
        }.items():
            (place / file).write_text(Template(text).substitute(values), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{place} cannot be written ({error.strerror})", "Choose another place with --in."
        ) from None
    return place
