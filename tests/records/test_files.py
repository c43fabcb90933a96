"""Records as files: what another version wrote is refused in one line, and a finished run keeps its date."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from tests.cards import one_line
from tests.records.made import made

import emperf
from emperf import records
from emperf.cli import main
from emperf.core.errors import UserError
from emperf.records.provenance import KEPT, SCHEMA, kept, now
from emperf.runtimes import docker
from emperf.runtimes.process import ProcessRuntime

Json = dict[str, Any]


def written(folder: Path, kind: str, **changes: Any) -> Path:
    path = folder / f"{kind}.json"
    path.write_text(json.dumps(made(kind) | changes))
    return path


@pytest.mark.parametrize("kind", records.KINDS)
def test_a_record_is_read_as_it_was_written(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    assert records.kind_in(tmp_path) == kind and records.read(kind, path) == made(kind)
    assert emperf.load(tmp_path).data == made(kind)


@pytest.mark.parametrize("kind", records.KINDS)
@pytest.mark.parametrize("version", [SCHEMA - 1, SCHEMA + 1])
def test_another_versions_record_is_one_line(tmp_path: Path, kind: str, version: int) -> None:
    # Other versions have other fields too; the version is what is said.
    path = written(tmp_path, kind, schema=version, surprise=1)
    words = (
        str(path),
        f"another version of EMPerf: schema {version}, this one reads {SCHEMA}",
        "the version that wrote it",
    )
    for read in (lambda: records.read(kind, path), lambda: emperf.load(tmp_path)):
        with pytest.raises(UserError) as error:
            read()
        one_line(error, *words)
    said = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert said.exit_code == 2 and said.stderr.count("\n") == 1
    assert all(word in said.stderr for word in words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged"),
        ("[]", "is not valid: the top level"),
        ("{}", "Field required"),
        ('{"schema": "1"}', "schema: "),
        ('{"schema": true}', "schema: "),
    ],
)
def test_what_is_no_record_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        records.read("result", path)
    one_line(error, str(path), words)


def test_a_missing_record_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        records.read("result", tmp_path / "result.json")
    one_line(error, "There is no")
    with pytest.raises(UserError) as error:
        records.kind_in(tmp_path)
    one_line(error, "holds no result.json")


def test_a_finished_run_keeps_its_date_and_its_machine(tmp_path: Path) -> None:
    before = made("result") | {"created": "2020-01-01T00:00:00Z"}
    before["machine"]["processor"] = "Another"
    records.finish("result", tmp_path, before, measured=True)
    fresh = made("result") | {"status": "incomplete", "created": "2026-01-01T00:00:00Z"}
    again = records.finish("result", tmp_path, fresh, measured=False)
    assert again == fresh | {name: before[name] for name in KEPT}
    assert json.loads((tmp_path / "result.json").read_text()) == again
    anew = records.finish("result", tmp_path, fresh, measured=True)
    assert anew == fresh


def test_the_first_record_of_a_run_has_nothing_to_keep(tmp_path: Path) -> None:
    assert records.finish("result", tmp_path, made("result"), measured=False) == made("result")


@pytest.mark.parametrize("changes", [{"schema": SCHEMA + 1}, {"machine": {"cores": 2}}, {"created": "today"}])
def test_another_versions_date_and_machine_are_not_kept(changes: Json) -> None:
    assert kept(made("result"), made("result") | {"sources": "sha256:" + "1" * 64} | changes) == made(
        "result"
    )


def test_a_wrong_record_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="surprise"):
        records.finish("result", tmp_path, made("result") | {"surprise": 1}, measured=True)
    assert list(tmp_path.iterdir()) == []


def test_what_runtimes_say_of_themselves_is_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = {"KernelVersion": "6.1", "CgroupVersion": "2", "CgroupDriver": "systemd", "Driver": "overlay2"}
    version = {"Version": "29.0", "ApiVersion": "1.52"}
    client = SimpleNamespace(
        info=lambda: info,
        version=lambda: version,
        inspect_image=lambda name: {"Id": "sha256:1", "RepoDigests": None, "Config": {"Cmd": ["x"]}},
    )
    monkeypatch.setattr(docker, "engine", lambda: nullcontext(client))
    engine = docker.DockerRuntime()
    engine._image(client, SimpleNamespace(image="emperf/kl"))  # type: ignore[arg-type]
    for facts in (ProcessRuntime(tmp_path).describe(), engine.describe()):
        whole = now("smoke-kl-1", facts)
        records.check("provenance", whole)
        assert whole["runtime"] == facts and whole["machine"]["memory_bytes"] > 0
