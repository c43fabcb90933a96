"""Submissions as their folders declare them. Nothing in them is executed here."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emperf.catalog.scenarios import CURE, SCENARIOS
from emperf.core import digests, paths, schemas
from emperf.core.errors import UserError

GENERAL = "general"
_FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "float": float,
    "int": int,
    "bool": {"true": True, "false": False}.__getitem__,
}
_KINDS: dict[str, Any] = {"float": (int, float), "int": (int,), "str": (str,), "bool": (bool,)}


@dataclass(frozen=True)
class Parameter:
    """A typed parameter of a submission. `min` and `max` bound numbers, both included."""

    type: str
    default: Any
    help: str = ""
    min: float | None = None
    max: float | None = None
    choices: tuple[Any, ...] = ()

    def check(self, name: str, value: Any) -> Any:
        """The value, converted; text (a command line's, or YAML's 1e-4) is read as the type.

        Raises ValueError with the constraint that fails.
        """
        if isinstance(value, str) and self.type in _FROM_TEXT:
            try:
                value = _FROM_TEXT[self.type](value)
            except (ValueError, KeyError):
                raise ValueError(f"{name} must be of type {self.type}, not {value!r}") from None
        if not isinstance(value, _KINDS[self.type]) or (isinstance(value, bool) and self.type != "bool"):
            raise ValueError(f"{name} must be of type {self.type}, not {value!r}")
        if isinstance(value, str) and not schemas.is_text(value):
            raise ValueError(f"{name} must be text in UTF-8, not {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be finite, not {value!r}")
        if self.min is not None and value < self.min:
            raise ValueError(f"{name} must be at least {self.min:g}, not {value!r}")
        if self.max is not None and value > self.max:
            raise ValueError(f"{name} must be at most {self.max:g}, not {value!r}")
        if self.choices and value not in self.choices:
            raise ValueError(f"{name} must be one of {list(self.choices)}, not {value!r}")
        return float(value) if self.type == "float" else value


@dataclass(frozen=True)
class Submission:
    """A mitigation as its folder declares it. `digest` is over the whole folder.

    Exactly one of `mitigation` (FILE.py:CLASS) and `image` (NAME@sha256:DIGEST, or a tag or an id on this machine) is
    not empty. `trusted`: kind -> rows that it asks for. `families`: the model families that it can handle, empty for
    any. `controls`: name -> parameter values under which it is its own control. `sweep`: the settings that it is tuned
    over, its defaults first; empty where there is nothing to tune.
    """

    name: str
    title: str
    submitter: str
    scenario: str
    source: str
    folder: Path
    digest: str
    mitigation: str = ""
    image: str = ""
    needs: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    trusted: dict[str, int] = field(default_factory=dict)
    controls: dict[str, dict[str, Any]] = field(default_factory=dict)
    sweep: tuple[dict[str, Any], ...] = ()
    parameters: dict[str, Parameter] = field(default_factory=dict)

    @property
    def mends(self) -> bool:
        """As of its scenario."""
        return self.scenario in SCENARIOS and SCENARIOS[self.scenario].mends

    @property
    def crosses(self) -> bool:
        """Whether it uses trusted rows of a poison's own domain, so that it is made for one poison."""
        return any(kind != GENERAL for kind in self.trusted)

    def called(self, values: dict[str, Any]) -> str:
        """Its name, and what these values (all of them) are: a control, "caft (random)", or what is not the default,
        "kl (weight=3)"."""
        for variant, given in self.controls.items():
            if self.values(given) == values:
                return f"{self.name} ({variant})"
        other = {name: value for name, value in values.items() if value != self.values({})[name]}
        return f"{self.name} ({written(other)})" if other else self.name

    def values(self, given: dict[str, Any]) -> dict[str, Any]:
        """Every parameter's value, defaults filled in. Raises UserError for one unknown or out of bounds."""
        file = self.folder / "submission.yaml"
        unknown = sorted(set(given) - set(self.parameters))
        if unknown:
            raise UserError(
                f"{file} declares no parameter {unknown[0]!r}",
                f"It has: {', '.join(self.parameters) or 'none'}.",
            )
        try:
            return {name: p.check(name, given.get(name, p.default)) for name, p in self.parameters.items()}
        except ValueError as error:
            raise UserError(f"{self.name}: {error}", f"The bounds are in {file}.") from None


def written(setting: dict[str, Any]) -> str:
    """A setting as text: "weight=3, every=5"."""
    return ", ".join(f"{name}={value}" for name, value in setting.items())


def check_values(where: str, values: dict[str, Any], parameters: dict[str, Parameter]) -> None:
    """Raises ValueError for a parameter that is not declared, or a value out of its bounds."""
    for name, value in values.items():
        if name not in parameters:
            raise ValueError(f"{where}: there is no parameter {name!r}")
        try:
            parameters[name].check(name, value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def check_sweep(sweep: Sequence[dict[str, Any]], parameters: dict[str, Parameter]) -> None:
    """Raises ValueError where the first setting is not the defaults, or two settings are the same."""
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    whole = [
        {name: parameters[name].check(name, value) for name, value in {**defaults, **setting}.items()}
        for setting in ({}, *sweep)
    ]
    if sweep and whole[1] != whole[0]:
        raise ValueError("sweep: its first setting has to be the defaults")
    if any(setting in whole[1:i] for i, setting in enumerate(whole)):
        raise ValueError("sweep: two of its settings are the same")


def submission(folder: Path) -> Submission:
    """The submission in `folder` (or a reference implementation by its name). Raises UserError."""
    folder = _found(folder)
    try:
        digests.refuse_links(folder)
        digest = digests.of_folder(folder)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror})", "Make it readable.") from None
    except UnicodeEncodeError:
        raise UserError(f"A file in {folder} has a name that is no UTF-8", "Rename it.") from None

    def build(raw: dict[str, Any]) -> Submission:
        parameters = {
            name: Parameter(**{**spec, "choices": tuple(spec.get("choices", ()))})
            for name, spec in raw.get("parameters", {}).items()
        }
        for name, parameter in parameters.items():
            parameter.check(name, parameter.default)
        for name, values in raw.get("controls", {}).items():
            check_values(f"controls.{name}", values, parameters)
        sweep = raw.get("sweep", ())
        for number, values in enumerate(sweep):
            check_values(f"sweep.{number}", values, parameters)
        check_sweep(sweep, parameters)
        domain = [kind for kind in raw.get("trusted", {}) if kind != GENERAL]
        if domain and raw["scenario"] != CURE.name:
            raise ValueError(f"trusted: rows of kind {domain[0]} are granted in scenario cure alone")
        entry = raw.get("mitigation", "").partition(":")[0]
        if entry and not (folder / entry).is_file():
            raise ValueError(f"mitigation names {entry}, which is not in the folder")
        return Submission(
            **{
                **raw,
                "needs": tuple(raw.get("needs", ())),
                "families": tuple(raw.get("families", ())),
                "sweep": tuple(sweep),
                "parameters": parameters,
                "folder": folder.resolve(),
                "digest": digest,
            }
        )

    return schemas.read(folder / "submission.yaml", "submission", build)


def _found(folder: Path) -> Path:
    """The folder itself, or that of the reference implementation of this name. Raises UserError."""
    places = [folder]
    if len(folder.parts) == 1:
        places.append(paths.project_folder("reference_impls") / folder)
    for place in places:
        # A text that no file can be named by is no folder either.
        with contextlib.suppress(OSError):
            if (place / "submission.yaml").is_file():
                return place
    raise UserError(
        f"{folder} is no submission: it has no submission.yaml",
        "Give a folder that has one, or a name from `emperf list mitigations`; `emperf new NAME` makes one.",
    )
