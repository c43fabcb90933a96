"""What a hostile program leaves in /out comes back as plain facts, and nothing in it is followed."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from tests.runtimes.conftest import RUNTIMES, Bench

from emperf.core.errors import CellFailure, FailureKind
from emperf.runtimes import OutputFile

MESS = r"""
os.chdir(OUT)
os.umask(0)
for name in ("plain", "two\nlines", "-rf", " ", "\u202ename", b"\xff\xfe", "back\\slash", "...", "\x1b[31m"):
    with open(name, "wb") as file:
        file.write(b"content")
os.symlink("/etc/passwd", "link")
os.symlink("/etc", "linked-folder")
os.symlink("loop", "loop")
os.symlink("plain", "link-inside")
os.mkfifo("fifo")
os.link("plain", "second-name")
os.mkdir("folder"); open("folder/inner", "w").write("inner")
os.symlink("../..", "folder/up")
open("secret", "w").write("s"); os.chmod("secret", 0)
open("setuid", "w").write("s"); os.chmod("setuid", 0o6777)
os.mkdir("closed"); open("closed/in", "w").write("i"); os.chmod("closed", 0)
for _ in range(100):
    os.mkdir("deep"); os.chdir("deep")
open("bottom", "w").write("b")
os.chdir(OUT)
import socket
socket.socket(socket.AF_UNIX).bind("socket")
"""


def entries(bench: Bench) -> dict[str, OutputFile]:
    found = list(bench.runtime.collect(bench.jobs[-1]))
    assert len({entry.path for entry in found}) == len(found)
    return {entry.path: entry for entry in found}


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_a_mess_comes_back_as_facts(bench: Bench) -> None:
    outcome = bench.run(MESS)
    assert outcome.exit_code == 0, outcome.log_tail
    found = entries(bench)
    odd = ("two\nlines", "-rf", " ", "\u202ename", "\udcff\udcfe", "back\\slash", "...", "\x1b[31m")
    for name in odd:
        assert (found[name].kind, found[name].size) == ("file", 7), ascii(name)
    for name in ("link", "linked-folder", "loop", "link-inside", "folder/up"):
        assert (found[name].kind, found[name].open) == ("symlink", None), name
    assert (found["fifo"].kind, found["fifo"].open) == ("other", None)
    assert "other" in (found["plain"].kind, found["second-name"].kind)
    assert found["folder"].kind == "dir"
    assert found["folder/inner"].size == 5
    assert found["secret"].kind == found["setuid"].kind == "file"
    assert not [name for name in found if name.startswith(("linked-folder/", "folder/up/", "/", "loop/"))]
    assert found.get("socket", found["fifo"]).kind == "other"
    bench.runtime.cleanup(bench.jobs[-1])


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_content_is_exactly_what_was_written(bench: Bench) -> None:
    bench.run("for size in (0, 1, 511, 512, 513, 3_000_001): open(f'{OUT}/{size}', 'wb').write(b'ab' * size)")
    read = {}
    for entry in bench.runtime.collect(bench.jobs[-1]):
        with entry.open() as stream:
            read[int(entry.path)] = stream.read()
            assert len(read[int(entry.path)]) == entry.size
    assert read == {size: b"ab" * size for size in (0, 1, 511, 512, 513, 3_000_001)}


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_unread_files_can_be_skipped(bench: Bench) -> None:
    bench.run("for name in 'abc': open(f'{OUT}/{name}', 'w').write(name * 100_000)")
    last = ""
    for entry in bench.runtime.collect(bench.jobs[-1]):
        if entry.path == "c":
            last = entry.open().read(3).decode()
    assert last == "ccc"


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_a_terabyte_of_holes_is_declared_and_not_read(bench: Bench) -> None:
    bench.run("open(OUT + '/holes', 'w').truncate(1 << 40)", output_bytes=2 << 40)
    job = bench.jobs[-1]
    # As from an engine that did not keep the limit on the size of a file.
    stream = bench.runtime.collect(replace(job, limits=replace(job.limits, output_bytes=1 << 30)))
    entry = next(stream)
    assert (entry.path, entry.kind, entry.size) == ("holes", "file", 1 << 40)
    if bench.runtime.name == "docker":
        with pytest.raises(CellFailure, match="holes") as failure:
            next(stream)
        assert failure.value.kind is FailureKind.BROKE_CONTRACT
    else:
        assert list(stream) == []


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_a_reader_that_stops_early_does_not_hold_the_container(bench: Bench) -> None:
    bench.run("open(OUT + '/holes', 'w').truncate(1 << 40)", output_bytes=2 << 40)
    job = bench.jobs[-1]
    stream = bench.runtime.collect(job)
    assert next(stream).open().read(1 << 20) == bytes(1 << 20)
    began = time.monotonic()
    bench.runtime.cleanup(job)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_inputs_arrive_as_given(bench: Bench) -> None:
    folder = bench.folder / "tree"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "x").write_bytes(b"x" * 70_000)
    (bench.folder / "one").write_text("one")
    bench.run(
        """
        tell(found={os.path.relpath(os.path.join(at, name), IN): os.path.getsize(os.path.join(at, name))
                    for at, _, names in os.walk(IN) for name in names})
        """,
        inputs={"job.json": b"{}", "data/train": folder, "one.txt": bench.folder / "one"},
    )
    assert bench.told()["found"] == {"job.json": 2, "data/train/sub/x": 70_000, "one.txt": 3}
