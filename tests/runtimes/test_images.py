"""Images that are made here: from a folder, from this machine's Python, and from the Dockerfile."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import docker
import pytest

from emperf.core import sources
from emperf.core.errors import UserError
from emperf.runtimes.dockerio import engine as engine_of
from emperf.runtimes.images import (
    SOURCES,
    base_image_tag,
    build_local_base,
    build_submission_image,
    content_of,
    resolve_image,
)
from emperf.runtimes.starts import bare_start_s, run_python
from emperf.runtimes.tars import tar_entry, tar_stream
from emperf.runtimes.trainer import copy_trainer

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


def folder(at: Path, **files: str) -> Path:
    at.mkdir()
    for name, content in files.items():
        (at / name).write_text(content)
    return at


@pytest.mark.docker
def test_an_image_is_built_once_for_the_same_content(test_base: str, tmp_path: Path) -> None:
    first = build_submission_image(test_base, folder(tmp_path / "a", main="1", other="2"))
    same = folder(tmp_path / "b", main="1", other="2")
    (same / "__pycache__").mkdir()
    (same / "__pycache__" / "main.pyc").write_bytes(b"cache")
    assert build_submission_image(test_base, same) == first
    assert build_submission_image(test_base, folder(tmp_path / "c", main="1", other="3")) != first
    (same / "main").chmod(0o755)
    assert build_submission_image(test_base, same) != first


@pytest.mark.docker
def test_an_image_that_is_built_on_a_submission_is_not_taken_for_it(test_base: str, tmp_path: Path) -> None:
    own = folder(tmp_path / "a", main=str(time.time_ns()))
    first = build_submission_image(test_base, own)
    recipe = f"FROM {first}\nENV more=1\n".encode()
    docker.from_env().images.build(fileobj=io.BytesIO(recipe), rm=True)
    assert build_submission_image(test_base, own) == first


@pytest.mark.docker
def test_links_and_missing_bases_are_refused(test_base: str, tmp_path: Path) -> None:
    linked = folder(tmp_path / "a", main="1")
    (linked / "link").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="link"):
        build_submission_image(test_base, linked)
    with pytest.raises(UserError, match="base image"):
        build_submission_image("emperf/tests:missing", folder(tmp_path / "b", main="1"))


@pytest.mark.docker
def test_a_base_with_other_sources_than_these_is_refused(test_base: str) -> None:
    assert content_of(test_base)
    with pytest.raises(UserError, match="not on this machine"):
        content_of("emperf/tests:missing")
    stale = docker.from_env().images.build(
        fileobj=io.BytesIO(f"FROM {test_base}\nLABEL {SOURCES}=sha256:0\n".encode()), rm=True
    )
    with pytest.raises(UserError, match="other sources"):
        content_of(stale[0].id)
    own = sources.digest("emperf.training.__main__")
    fresh = docker.from_env().images.build(
        fileobj=io.BytesIO(f"FROM {test_base}\nLABEL {SOURCES}={own}\n".encode()), rm=True
    )
    assert content_of(fresh[0].id)


@pytest.mark.docker
def test_a_local_base_is_made_once(test_base: str) -> None:
    first = build_local_base("emperf/tests:python", packages=False)
    began = time.monotonic()
    assert build_local_base("emperf/tests:python", packages=False) == first
    assert time.monotonic() - began < 1
    config = docker.from_env().images.get(first).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert {"HOME=/tmp", "PYTHONDONTWRITEBYTECODE=1", "HF_HUB_OFFLINE=1"} <= set(config["Env"])


@pytest.mark.docker
def test_the_base_holds_the_trainer_and_no_other_source(base: str) -> None:
    look = "import emperf, pathlib; root = pathlib.Path(emperf.__file__).parent\n"
    look += "print(*sorted(path.relative_to(root) for path in root.rglob('*.py')))"
    with engine_of() as client:
        code, _, log = run_python(client, base, look)
    expected = [path.relative_to(sources.PACKAGE) for path in sources.closure("emperf.training.__main__")]
    assert code == 0
    assert log.split() == sorted(map(str, expected))


def test_the_trainers_sources_can_be_had_apart(tmp_path: Path) -> None:
    copy_trainer(tmp_path)
    assert {path.name for path in (tmp_path / "emperf").iterdir()} == {"__init__.py", "training"}
    done = subprocess.run(
        [sys.executable, "-c", "import emperf.training.loop as l; print(l.__file__)"],
        env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "emperf/training/loop.py")


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_a_base_that_lacks_what_the_trainer_needs_is_not_tagged(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    site = next((tmp_path / "venv").glob("lib/python3*/site-packages"))
    # So does an editable install, conda or uv: this Python imports torch, and the folder does not hold it.
    (site / "elsewhere.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    before = {image.id for image in docker.from_env().images.list()}
    with pytest.raises(UserError, match="No module named 'torch'") as error:
        build_local_base("emperf/tests:without", python=str(tmp_path / "venv/bin/python"))
    assert len(str(error.value).splitlines()) == 1 and ".pth" in error.value.fix
    assert {image.id for image in docker.from_env().images.list()} <= before


@pytest.mark.docker
def test_a_submission_may_name_its_image_as_it_likes(test_base: str) -> None:
    made = docker.from_env().images.get(test_base).id
    assert (
        resolve_image(test_base) == resolve_image(made) == resolve_image(made.removeprefix("sha256:")) == made
    )
    for wrong in ("emperf/tests:missing", "emperf/tests@sha256:" + "0" * 64, "No Such: image"):
        with pytest.raises(UserError, match="not on this machine"):
            resolve_image(wrong)


@pytest.mark.docker
def test_a_bare_start_is_that_of_the_images_own_python(test_base: str, tmp_path: Path) -> None:
    assert 0 < bare_start_s(test_base) < 5
    with pytest.raises(UserError, match="not on this machine"):
        bare_start_s("emperf/tests:missing")
    slow = build_submission_image(
        test_base, folder(tmp_path / "a", **{"torch.py": "import time; time.sleep(2)"})
    )
    images = docker.from_env().images
    recipe = f"FROM {slow}\nENV PYTHONPATH=/submission\nENTRYPOINT ['sleep', '60']\n".replace("'", '"')
    made = images.build(fileobj=io.BytesIO(recipe.encode()), rm=True)[0]
    assert 2 < bare_start_s(made.id) < 12
    none = images.build(fileobj=io.BytesIO(f"FROM {test_base}\nENV PATH=/none\n".encode()), rm=True)[0]
    assert bare_start_s(none.id) == 0.0
    for image in (made.id, none.id, slow):
        images.remove(image, force=True)


def test_the_base_image_is_tagged_with_the_version() -> None:
    assert base_image_tag().startswith("emperf/submission:")


def test_the_dockerfiles_own_base_is_pinned() -> None:
    default = re.search(r"^ARG BASE=(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert default and re.fullmatch(r"python:3\.11\.\d+-slim@sha256:[0-9a-f]{64}", default[1])


@pytest.mark.docker
@pytest.mark.usefixtures("test_base")
def test_the_dockerfile_refuses_a_base_that_is_not_pinned() -> None:
    context = b"".join(tar_stream([tar_entry("Dockerfile", DOCKERFILE.read_bytes())]))
    with pytest.raises(docker.errors.DockerException) as failure:
        docker.from_env().images.build(
            fileobj=io.BytesIO(context),
            custom_context=True,
            buildargs={"BASE": "emperf/tests:python"},
            forcerm=True,
            network_mode="none",
        )
    log = "".join(line.get("stream", "") for line in getattr(failure.value, "build_log", []))
    assert "not pinned" in f"{failure.value} {log}"


def test_the_stream_is_a_tar_that_others_read(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"b" * 1_500_000)
    entries = [tar_entry("d"), tar_entry("d/" + "long" * 40, b"x"), tar_entry("big", tmp_path / "big")]
    listing = subprocess.run(
        ["tar", "-tv"], input=b"".join(tar_stream(entries)), capture_output=True, check=True
    )
    assert b"long" * 40 in listing.stdout
    assert b"1500000" in listing.stdout


def test_a_file_that_shrinks_is_an_error_and_not_a_broken_archive(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1234")
    entry = tar_entry("f", tmp_path / "f")
    (tmp_path / "f").write_bytes(b"1")
    with pytest.raises(OSError, match="shrank"):
        list(tar_stream([entry]))
