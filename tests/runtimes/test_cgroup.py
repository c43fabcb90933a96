"""The control group's files, on trees that look like version 1 and version 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from emperf.meters.cgroup import Cgroup


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    for name in ("memory", "pids", "cpu", "blkio"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("memory pids cpu")
    (tmp_path / "cgroup.subtree_control").write_text("")
    return tmp_path


def test_limits_of_version_1(v1: Path) -> None:
    swap = v1 / "memory" / "a" / "b" / "memory.memsw.limit_in_bytes"
    swap.parent.mkdir(parents=True)
    swap.write_text("")
    assert Cgroup("/a/b", v1).create(1000, 20, 1.5)
    assert (v1 / "memory/a/b/memory.limit_in_bytes").read_text() == "1000"
    assert swap.read_text() == "1000"
    assert (v1 / "pids/a/b/pids.max").read_text() == "20"
    assert (v1 / "cpu/a/b/cpu.cfs_quota_us").read_text() == "150000"
    assert not (v1 / "blkio/a").exists()


def test_limits_of_version_2(v2: Path) -> None:
    (v2 / "a/b").mkdir(parents=True)
    (v2 / "a/b/memory.swap.max").write_text("max")
    group = Cgroup("a/b", v2)
    assert group.create(1000, 20, 0.5)
    read = {file.name: file.read_text() for file in (v2 / "a/b").iterdir()}
    assert read == {
        "memory.max": "1000",
        "memory.swap.max": "0",
        "pids.max": "20",
        "cpu.max": "50000 100000",
    }
    for folder in (v2, v2 / "a"):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_no_right_to_limit_leaves_nothing(tmp_path: Path) -> None:
    assert not Cgroup("a", tmp_path).create(1, 1, 1)
    assert Cgroup("a", tmp_path).version is None
    (tmp_path / "cgroup.controllers").write_text("")
    # As on a read-only mount: the parent cannot be told to pass its controllers on.
    (tmp_path / "cgroup.subtree_control").mkdir()
    assert not Cgroup("a", tmp_path).create(1, 1, 1)
    assert not (tmp_path / "a").exists()


def test_readings_of_version_1(v1: Path) -> None:
    job, container = v1 / "memory/job", v1 / "memory/job/container"
    container.mkdir(parents=True)
    (job / "memory.max_usage_in_bytes").write_text("500\n")
    (job / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    (container / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    group = Cgroup("job", v1)
    group.sample()
    assert (group.peak_bytes, group.oom_kills, group.meter) == (500, 2, "cgroup-v1")
    # What was seen stays when the container's own group is gone.
    (container / "memory.oom_control").unlink()
    container.rmdir()
    group.sample()
    assert group.oom_kills == 2


def test_readings_of_version_2(v2: Path) -> None:
    job = v2 / "job"
    job.mkdir()
    (job / "memory.peak").write_text("700\n")
    (job / "memory.current").write_text("300\n")
    (job / "memory.events").write_text("low 0\noom 1\noom_kill 1\noom_group_kill 0\n")
    group = Cgroup("job", v2)
    group.sample()
    for file in job.iterdir():
        file.unlink()
    group.remove()
    assert not job.exists()
    group.sample()
    assert (group.peak_bytes, group.oom_kills, group.meter) == (700, 1, "cgroup-v2")


def test_a_kernel_without_a_peak_is_sampled_and_says_so(v2: Path) -> None:
    job = v2 / "job"
    job.mkdir()
    group = Cgroup("job", v2)
    for now in (300, 900, 100):
        (job / "memory.current").write_text(str(now))
        group.sample()
    assert (group.peak_bytes, group.meter) == (900, "cgroup-v2-sampled")


def test_nothing_readable_is_none_and_not_zero(v1: Path, tmp_path: Path) -> None:
    for group in (Cgroup("absent", v1), Cgroup("absent", tmp_path / "no-root")):
        group.sample()
        assert (group.peak_bytes, group.oom_kills, group.pids()) == (None, None, set())


def test_removal_takes_every_hierarchy_and_the_groups_below(v1: Path) -> None:
    for name in ("memory", "blkio"):
        (v1 / name / "job" / "container").mkdir(parents=True)
    (v1 / "memory" / "other").mkdir()
    Cgroup("job", v1).remove()
    assert not list(v1.glob("*/job"))
    assert (v1 / "memory" / "other").exists()
    Cgroup("job", v1).remove()


def test_a_process_outside_of_this_namespace_is_not_ourselves(v1: Path) -> None:
    (v1 / "memory" / "job").mkdir()
    (v1 / "memory" / "job" / "cgroup.procs").write_text("0\n12\n")
    assert Cgroup("job", v1).pids() == {12}
