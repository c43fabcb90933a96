"""Files that people write, checked against spec/schemas: a malformed one gives one line with file and fix."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import yaml
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from emperf.core import paths
from emperf.core.errors import UserError

T = TypeVar("T")

_BETTER_DESCRIBED = {"pattern", "not", "const", "maxItems"}
_LONGEST_MESSAGE = 300


class _Loader(yaml.SafeLoader):
    """Plain YAML in which a key that is given twice is an error, not silently the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    line = key_node.start_mark.line + 1
                    raise ValueError(f"line {line}: {key_node.value!r} is given twice")
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def schema(name: str) -> dict[str, Any]:
    """spec/schemas/NAME.schema.json. Raises UserError where it is not there."""
    path = paths.project_folder("spec") / "schemas" / f"{name}.schema.json"
    restore = "Restore it from the repository (git checkout)."
    loaded: dict[str, Any] = json.loads(paths.read_file(path, restore))
    return loaded


def check(name: str, value: Any) -> None:
    """Raises ValueError with the first place where `value` breaks spec/schemas/NAME.schema.json.

    NAME#PART is what the schema has under `$defs` as PART.
    """
    _check(name, value, written=False)


def check_written(name: str, value: Any) -> None:
    """As `check`, for what a person wrote: 8.0 is no integer, numbers are finite, text is UTF-8, keys are text."""
    _refuse_odd(value, (), set())
    _check(name, value, written=True)


def read(path: Path, schema_name: str, build: Callable[[dict[str, Any]], T]) -> T:
    """What `build` makes of a YAML file that keeps its schema. Raises UserError, for `build`'s errors too."""
    allowed = f"See spec/schemas/{schema_name}.schema.json for what is allowed."
    text = paths.read_file(path, allowed)
    if not text.strip():
        raise UserError(f"{path}: the top level is empty", allowed)
    try:
        raw = yaml.load(text, Loader=_Loader)
        check_written(schema_name, raw)
        return build(raw)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{where} is not valid YAML", "Mend the syntax there.") from None
    except yaml.YAMLError:
        raise UserError(f"{path} is not valid YAML", "Write it as plain UTF-8 text.") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply", "Write it flat.") from None
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise UserError(f"{path}: {error}", allowed) from None


def _check(name: str, value: Any, *, written: bool) -> None:
    validator = _validator(paths.project_folder("spec"), name, written)
    # Most values are valid, and finding the worst of several errors takes long.
    if validator.is_valid(value):
        return
    worst = jsonschema.exceptions.best_match(validator.iter_errors(value))
    assert worst is not None
    place = ".".join(str(part) for part in worst.absolute_path) or "the top level"
    described = worst.schema.get("description") if worst.validator in _BETTER_DESCRIBED else None
    if worst.validator == "maxLength":
        described = f"at most {worst.validator_value} characters, not {len(worst.instance)}"
    message = str(described or worst.message)
    raise ValueError(
        f"{place}: {message if len(message) <= _LONGEST_MESSAGE else message[:_LONGEST_MESSAGE] + '...'}"
    )


@functools.cache
def _validator(folder: Path, name: str, written: bool) -> Any:
    """Compiled once for every `folder` with schemas. `written`: as of `check_written`. Raises as `schema`."""
    file, _, part = name.partition("#")
    schema(file)
    wanted = {"$ref": f"{file}.schema.json" + (f"#/$defs/{part}" if part else "")}
    return (_Written if written else _Plain)(wanted, registry=_registry(folder))


@functools.cache
def _registry(folder: Path) -> Registry[Any]:
    """All schemas, so that one may refer to another."""
    names = [path.name.removesuffix(".schema.json") for path in folder.glob("schemas/*.schema.json")]
    # A schema that names its dialect would be checked by the library's own validator in place of the one below.
    bare = {name: {key: part for key, part in schema(name).items() if key != "$schema"} for name in names}
    found = [
        (f"{name}.schema.json", DRAFT202012.create_resource(contents)) for name, contents in bare.items()
    ]
    return Registry[Any]().with_resources(found).crawl()


def _whole_pattern(validator: Any, pattern: str, value: Any, _: Any) -> Iterator[jsonschema.ValidationError]:
    """`pattern`, where `$` is the text's end; in Python it also stands before a last line feed."""
    whole = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
    if isinstance(value, str) and not re.search(whole, value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


_extend: Any = jsonschema.validators.extend
_Plain = _extend(jsonschema.Draft202012Validator, {"pattern": _whole_pattern})
_Written = _extend(
    _Plain,
    type_checker=_Plain.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def _refuse_odd(value: Any, place: tuple[str, ...], seen: set[int]) -> None:
    """Raises ValueError for what parsers let through and schemas cannot say. `seen`: ids of what is checked already,
    since YAML may refer to one part many times."""
    where = ".".join(place) or "the top level"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: a number has to be finite, not {value!r}")
    if isinstance(value, str) and not is_text(value):
        raise ValueError(f"{where}: {value!r} is no text in UTF-8")
    if not isinstance(value, (dict, list)) or id(value) in seen:
        return
    seen.add(id(value))
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict) and not (isinstance(key, str) and is_text(key)):
            raise ValueError(f"{where}: the key {key!r} is no text; put it in quotes")
        _refuse_odd(part, (*place, str(key)), seen)


def is_text(value: str) -> bool:
    """Whether it can be written as UTF-8; a command line may hold bytes that are none."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
