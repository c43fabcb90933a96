"""Images that are made on this machine: a submission's, and the base image where there is no registry."""

from __future__ import annotations

import compileall
import contextlib
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docker.errors import APIError, ImageNotFound

from emperf.core import digests
from emperf.core.errors import UserError
from emperf.core.version import VERSION
from emperf.runtimes import trainer
from emperf.runtimes.dockerio import engine
from emperf.runtimes.starts import RUNNER, what_fails
from emperf.runtimes.tars import Entry, tar_entry, tar_link, tar_stream, tar_tree

ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HF_HUB_OFFLINE": "1",
}
LOCAL_BASE, SOURCES = "emperf.local-base", "emperf.sources"
_ENGINE_TIMEOUT_S = 900
# To be raised when what this module puts into a base image changes, so that images are made again.
_LAYOUT = 2
_NEEDED_MODULES = ("torch", "transformers", "peft", "deepspeed", "safetensors", "emperf.training.loop")
_FOLDERS = (
    "dev etc proc sys usr usr/bin usr/lib usr/lib64 usr/local usr/local/bin usr/local/lib in submission"
)
# docker-py stays: without a registry, the harness's own image is built from this base too.
_UNUSED_FOLDERS = re.compile(
    r"tests?|include|idlelib|tkinter|turtledemo|ensurepip|lib2to3|config-\d.*|site-packages"
)
_UNUSED_PACKAGES = re.compile(
    r"(pip|ruff|mypyc?|mypy_extensions|\w+__mypyc|ast_serialize|librt|_?pytest|py|iniconfig|pluggy|_?hypothesis\w*"
    r"|types_\w+|\w+-stubs|emperf|__editable__.*)([-.].*)?"
)
# Opened by name at run time, so ldd does not list them.
_DLOPENED = ("libgcc_s.so.1", "libstdc++.so.6", "libgomp.so.1", "libnss_files.so.2")
_ASK = """
import json, sys, sysconfig, importlib.metadata as m
name, site = "python%d.%d" % sys.version_info[:2], sysconfig.get_path("purelib")
print(json.dumps({
    "name": name, "version": sys.version, "binary": sys.base_prefix + "/bin/" + name,
    "stdlib": sysconfig.get_path("stdlib"), "site": site,
    "packages": sorted(d.metadata["Name"] + "==" + d.version for d in m.distributions(path=[site]))}))
"""


def base_image_tag() -> str:
    """The tag of the image that submissions start from."""
    return f"emperf/submission:{VERSION}"


def resolve_image(reference: str) -> str:
    """The id of an image of this machine that a submission names by NAME@sha256:..., a local tag, or an id.

    Raises UserError if there is none; CellFailure(MACHINE).
    """
    with engine() as client:
        try:
            return str(client.inspect_image(reference)["Id"])
        except APIError as error:
            if not error.is_client_error():
                raise
            fix = "Build it, or pull it by its digest (docker pull NAME@sha256:...): the harness never pulls."
            raise UserError(f"the image {reference} is not on this machine", fix) from None


def content_of(base: str) -> str:
    """What the base image `base` is, by content: what it was made of, or its id where another hand built it.

    Raises UserError if there is none here or it holds another trainer than this one; CellFailure(MACHINE).
    """
    fix = "Make the local one with: emperf prepare --image (make setup does), or build it again from the Dockerfile."
    with engine() as client:
        try:
            found = client.inspect_image(base)
        except ImageNotFound:
            raise UserError(f"the base image {base} is not on this machine", fix) from None
    labels = found["Config"].get("Labels") or {}
    own = trainer.digest()
    if labels.get(SOURCES, own) != own:
        raise UserError(f"the base image {base} holds other sources of emperf.training than these", fix)
    return str(labels.get(LOCAL_BASE, found["Id"]))


def build_submission_image(base: str, folder: Path) -> str:
    """The id of the image `base` with `folder` as /submission, built unless one with the same content exists.

    Raises UserError for a missing base, a link or a special file; CellFailure(MACHINE) if the engine fails.
    """
    digests.refuse_links(folder)
    entries = [tar_entry("submission")]
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if digests.counts(inside):
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            content = path.read_bytes() if path.is_file() else None
            entries.append(tar_entry(f"submission/{inside.as_posix()}", content, mode))
    content_digest = hashlib.sha256(b"".join(tar_stream(entries))).hexdigest()
    with engine(_ENGINE_TIMEOUT_S) as client:
        try:
            base_id = str(client.inspect_image(base)["Id"])
        except ImageNotFound:
            fix = "Pull it by its digest, or make the local one with: emperf prepare"
            raise UserError(f"the base image {base} is not on this machine", fix) from None
        # Found by its tag alone: an image that is built on this one carries its labels too.
        tag = f"emperf/built:{hashlib.sha256(f'{base_id} {content_digest}'.encode()).hexdigest()[:32]}"
        with contextlib.suppress(ImageNotFound):
            return str(client.inspect_image(tag)["Id"])
        recipe = tar_entry("Dockerfile", f"FROM {base_id}\nCOPY submission /submission\n".encode(), 0o644)
        for line in client.build(
            fileobj=io.BytesIO(b"".join(tar_stream([recipe, *entries]))),
            custom_context=True,
            tag=tag,
            labels={"emperf.submission": f"sha256:{content_digest}", "emperf.base": base_id},
            network_mode="none",
            rm=True,
            decode=True,
        ):
            if "error" in line:
                raise APIError(line["error"].strip())
        return str(client.inspect_image(tag)["Id"])


def build_local_base(tag: str | None = None, python: str = sys.executable, packages: bool = True) -> str:
    """The id of a base image made of this machine's own Python, where there is no registry; tagged `tag`.

    It holds the interpreter, the shared libraries that it needs and, with `packages`, its site-packages and
    `emperf.training`. Built again only when a version or a source of the trainer changed; tagged once what the trainer
    needs was imported in it. Raises UserError where that fails; CellFailure(MACHINE) if the engine fails.
    """
    tag = tag or base_image_tag()
    facts = json.loads(subprocess.check_output([python, "-c", _ASK], text=True))
    own = trainer.digest() if packages else ""
    content = digests.of_json([_LAYOUT, facts, own]).removeprefix("sha256:")
    changes = [f"ENV {key}={value}" for key, value in ENV.items()]
    changes += [f"USER {RUNNER}:{RUNNER}", f"LABEL {LOCAL_BASE}={content}"]
    if packages:
        changes.append(f"LABEL {SOURCES}={own}")
        changes.append(f"ENTRYPOINT {json.dumps(['python3', *trainer.ARGUMENTS])}")
    with engine(_ENGINE_TIMEOUT_S) as client:
        if client.images(name=tag, filters={"label": f"{LOCAL_BASE}={content}"}):
            return str(client.inspect_image(tag)["Id"])
        with tempfile.TemporaryDirectory() as scratch:
            stream = tar_stream(_rootfs(facts, packages, Path(scratch)))
            answer = client.import_image(stream, changes=changes, stream_src=True)
        if '"error"' in answer:
            raise APIError(answer.strip())
        made = str(json.loads(answer.strip().splitlines()[-1])["status"])
        try:
            if why := what_fails(client, made, _NEEDED_MODULES if packages else ()):
                raise UserError(
                    f"the image made of {python} does not work ({why}), so it was not kept",
                    f"Only {facts['site']} goes in, and nothing that a .pth file there names: prepare from a plain "
                    "environment (make setup, or python -m venv and pip install -r requirements.lock).",
                )
            client.tag(made, *tag.rsplit(":", 1))
        except BaseException:
            client.remove_image(made, force=True)
            raise
        return made


def _rootfs(facts: dict[str, Any], packages: bool, scratch: Path) -> Iterator[Entry]:
    name, shell = facts["name"], Path("/bin/sh").resolve()
    lib = f"usr/local/lib/{name}"
    yield from (tar_entry(folder) for folder in _FOLDERS.split())
    yield from (tar_link(folder, f"usr/{folder}") for folder in ("bin", "lib", "lib64"))
    yield tar_entry("tmp", mode=0o1777)
    yield tar_entry("out", owner=RUNNER)
    accounts = (
        f"root:x:0:0::/:/bin/sh\nrunner:x:{RUNNER}:{RUNNER}::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
    )
    yield tar_entry("etc/passwd", accounts.encode(), 0o644)
    yield tar_entry("etc/group", f"root:x:0:\nrunner:x:{RUNNER}:\nnogroup:x:65534:\n".encode(), 0o644)
    yield tar_entry("usr/bin/sh", shell)
    yield tar_entry(f"usr/local/bin/{name}", Path(facts["binary"]))
    yield from (tar_link(f"usr/local/bin/{other}", name) for other in ("python3", "python"))
    kept = [*tar_tree(Path(facts["stdlib"]), lib, _needed), tar_entry(f"{lib}/site-packages")]
    if packages:
        for path in sorted(Path(facts["site"]).iterdir()):
            if _needed(path) and not _UNUSED_PACKAGES.fullmatch(path.name):
                kept += tar_tree(path, f"{lib}/site-packages/{path.name}", _needed)
        trainer.copy_trainer(scratch)
        compileall.compile_dir(scratch, quiet=1, stripdir=str(scratch), prependdir=f"/{lib}/site-packages")
        kept += tar_tree(scratch / "emperf", f"{lib}/site-packages/emperf")
    yield from kept
    shared = [source for info, source in kept if isinstance(source, Path) and ".so" in info.name]
    yield from _libraries(
        [Path(facts["binary"]), shell, *shared], {Path(facts["stdlib"]), Path(facts["site"])}
    )


def _needed(path: Path) -> bool:
    return path.suffix != ".a" and not (path.is_dir() and _UNUSED_FOLDERS.fullmatch(path.name))


def _libraries(files: list[Path], inside: set[Path]) -> Iterator[Entry]:
    """What the dynamic linker finds for `files` outside of `inside`, put where it looks by default."""
    found: set[Path] = set()
    for start in range(0, len(files), 200):
        # ldd fails for a file that is not dynamic, and has listed the others all the same.
        command = ["ldd", *map(str, files[start : start + 200])]
        listing = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        found |= {Path(path) for path in re.findall(r"(?:=> |^\s)(/\S+) \(0x", listing, re.MULTILINE)}
    libc = next(path for path in found if path.name.startswith("libc.so"))
    found |= {libc.parent / name for name in _DLOPENED if (libc.parent / name).exists()}
    wanted = {path.name: path for path in found if not any(path.is_relative_to(folder) for folder in inside)}
    made = set(_FOLDERS.split())
    for path in wanted.values():
        # The loader is named by its full path in every program; all else goes to the C library's folder.
        folder = path.parent if path.name.startswith("ld-linux") else libc.parent
        target = "/".join(["usr", *[part for part in folder.parts if part not in ("/", "usr")]])
        if target not in made:
            made.add(target)
            yield tar_entry(target)
        yield tar_entry(f"{target}/{path.name}", path)
