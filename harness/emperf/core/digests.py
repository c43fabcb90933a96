"""Names by content: canonical JSON, files, folders, tensors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from emperf.core.errors import UserError


def of_json(value: Any) -> str:
    """sha256 of the value's canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return of_bytes(text.encode())


def of_bytes(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def of_folder(folder: Path) -> str:
    """Over relative paths and contents of the plain files below `folder` that count."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return of_json({path.as_posix(): of_file(folder / path) for path in files if counts(path)})


def refuse_links(folder: Path) -> None:
    """Raises UserError for a link or a special file among what counts: what it names is no part of the content."""
    for path in sorted(folder.rglob("*")):
        plain = not path.is_symlink() and (path.is_dir() or path.is_file())
        if counts(path.relative_to(folder)) and not plain:
            raise UserError(
                f"{path} is a link or a special file", "A submission holds only plain files and folders."
            )


def counts(inside: Path) -> bool:
    """Whether a path in a folder is part of its content: hidden files and caches are not, nor do they go anywhere."""
    return not any(part.startswith((".", "__pycache__")) for part in inside.parts)


def of_tensors(path: Path) -> str:
    """Over names, dtypes, shapes and bytes of a safetensors file, whatever its order or metadata."""
    from safetensors import safe_open

    entries = {}
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            array = file.get_tensor(name)
            entries[name] = [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    return of_json(entries)


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
