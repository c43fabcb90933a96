"""Files that people write, checked against spec/schemas: a malformed one gives one line with file and fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import yaml
from referencing import Registry, Resource

from emperf.core import paths
from emperf.core.errors import UserError

T = TypeVar("T")

_BETTER_DESCRIBED = {"pattern", "not", "const", "maxItems"}


def schema(name: str) -> dict[str, Any]:
    path = paths.project_folder("spec") / "schemas" / f"{name}.schema.json"
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def check(name: str, value: Any) -> None:
    """Raises ValueError with the first place where `value` breaks spec/schemas/NAME.schema.json."""
    registry: Any = Registry(  # type: ignore[call-arg]
        retrieve=lambda uri: Resource.from_contents(schema(uri.removesuffix(".schema.json")))
    )
    validator = jsonschema.Draft202012Validator(schema(name), registry=registry)
    worst = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if worst is None:
        return
    place = ".".join(str(part) for part in worst.absolute_path) or "the top level"
    described = worst.schema.get("description") if worst.validator in _BETTER_DESCRIBED else None
    raise ValueError(f"{place}: {described or worst.message}")


def read(path: Path, schema_name: str, build: Callable[[dict[str, Any]], T]) -> T:
    """What `build` makes of a YAML file that keeps its schema. Raises UserError, for `build`'s errors too."""
    try:
        raw = yaml.safe_load(path.read_bytes())
        check(schema_name, raw)
        return build(raw)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{where} is not valid YAML", "Mend the syntax there.") from None
    except yaml.YAMLError:
        raise UserError(f"{path} is not valid YAML", "Write it as plain UTF-8 text.") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply", "Write it flat.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: {error}", f"See spec/schemas/{schema_name}.schema.json for what is allowed."
        ) from None
