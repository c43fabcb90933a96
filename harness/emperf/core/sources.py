"""Which of the package's own files a module runs: what decides the bytes of its results, and nothing else.

Imports are read from the source, those inside of functions too; a module that is named by a string alone is not found.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
NAME = PACKAGE.name


@cache
def closure(*modules: str) -> tuple[Path, ...]:
    """The files of `modules` (dotted names) and of all that they import of this package, sorted.

    Raises ValueError for a module that is not there.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = file_of(name)
        if path is None:
            raise ValueError(f"there is no module {name}")
        found[name] = path
        waiting += [above for above in parents(name) if above not in found]
        waiting += [other for other in imported(path) if other not in found]
    return tuple(sorted(set(found.values())))


@cache
def digest(*modules: str) -> str:
    """sha256 over the closure of `modules`: paths below the package, and contents."""
    whole = hashlib.sha256()
    for path in closure(*modules):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(PACKAGE).as_posix()}\0{len(content)}\0".encode() + content)
    return f"sha256:{whole.hexdigest()}"


def file_of(module: str) -> Path | None:
    place = PACKAGE.parent.joinpath(*module.split("."))
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


def parents(module: str) -> list[str]:
    """Packages around a module, whose `__init__` an import runs."""
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def imported(path: Path) -> Iterator[str]:
    """Modules of this package that the file at `path` imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == NAME)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == NAME:
            yield node.module
            inside = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name for name in inside if file_of(name))
