"""`emperf prepare`: a pinned model from its source to a folder of safetensors, once.

    HOME/models/<name>-<digest>/        config.json, tokenizer files, model.safetensors (float32): what containers see
    HOME/models/<name>-<digest>.json    the harness's record of it: source, digests of all files, their sizes and times

Sources, tried in the order the card gives: `path` (a folder the user names), `package` (a wheel of the package index
that carries a GGUF, or several that carry a part each), `hub` (a repository of the model hub at a pinned revision).
Whatever the source, the result must have the card's digests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

from emperf.catalog import Model, Source
from emperf.core import digests, paths
from emperf.core.errors import UserError
from emperf.core.files import disk_errors, read_json, write_json

TEMPLATE = "chat_template.jinja"


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
        verify(model, folder)
        if facts["digests"] != contents(folder):
            raise altered(model, folder)
        write_json(record_of(model), facts | {"files": stamps(folder)})
    # No digest in the card covers its template, which may have changed since.
    if model.chat_template and (folder / TEMPLATE).read_text() != model.chat_template:
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
        f"Model {model.name} in {folder} is not the pinned one (its digest differs)", again(model, folder)
    )


def again(model: Model, folder: Path) -> str:
    return f"Delete {folder} and run: emperf prepare {model.name}"


def verify(model: Model, folder: Path) -> None:
    """Raises UserError unless weights and tokenizer are the card's, by content."""
    try:
        same = digests.of_tensors(folder / "model.safetensors") == model.digest
        same = same and digests.of_file(folder / "tokenizer.json") == f"sha256:{model.tokenizer_sha256}"
    except Exception as error:  # a damaged file raises whatever its reader raises
        raise UserError(
            f"Model {model.name} in {folder} cannot be read ({type(error).__name__})", again(model, folder)
        ) from None
    if not same:
        raise altered(model, folder)


def prepare(model: Model, local: Path | None = None, say: Any = print) -> Path:
    """Make the model ready; does nothing if it is. `local`: a folder to take it from instead of the card's sources."""
    folder = model_folder(model)
    if "digests" in (read_json(record_of(model)) or {}) and folder.is_dir():
        return prepared(model)
    sources = [Source("path", str(local), "", "")] if local else list(model.sources)
    problems = []
    with disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for source in sources:
            scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
            try:
                say(f"Preparing {model.name} from {source.kind} {source.locator} {source.revision}".rstrip())
                GET[source.kind](source, scratch)
                if model.chat_template:
                    set_template(scratch, model.chat_template)
                verify(model, scratch)
                shutil.rmtree(folder, ignore_errors=True)
                scratch.rename(folder)
                origin = [source.kind, source.locator, source.revision]
                facts = {"source": origin, "digests": contents(folder), "files": stamps(folder)}
                write_json(record_of(model), facts)
                return folder
            except UserError as error:
                problems.append(str(error))
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    raise UserError(
        f"Model {model.name} could not be prepared ({'; '.join(problems)})",
        "Check the network, or give a local copy with --from FOLDER.",
    )


def from_path(source: Source, into: Path) -> None:
    place = Path(source.locator)
    if not (place / "config.json").is_file():
        raise UserError(
            f"{place} holds no model (no config.json)", "Give a folder as save_pretrained writes it."
        )
    convert(place, into)


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
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        place = snapshot_download(
            source.locator, revision=source.revision, allow_patterns=["*.json", "*.safetensors", "*.jinja"]
        )
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{source.locator} cannot be fetched ({type(error).__name__})", "Is there a network?"
        ) from None
    convert(Path(place), into)


GET = {"path": from_path, "package": from_package, "hub": from_hub}


def convert(place: Path, into: Path, gguf_file: str | None = None) -> None:
    """Load once, save as float32 safetensors in one file, with the tokenizer."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    extra = {"gguf_file": gguf_file} if gguf_file else {"use_safetensors": True}
    tokenizer_extra = {"gguf_file": gguf_file} if gguf_file else {}
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, local_files_only=True, **extra)
    # A GGUF load leaves its quantiser behind, and save_pretrained then refuses to write plain weights.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(into, max_shard_size="100GB")
    AutoTokenizer.from_pretrained(place, local_files_only=True, **tokenizer_extra).save_pretrained(into)


def set_template(folder: Path, template: str) -> None:
    (folder / TEMPLATE).write_text(template)
