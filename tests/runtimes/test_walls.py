"""Every wall, as seen by a hostile program from inside."""

from __future__ import annotations

import os
import socket

import pytest
from tests.runtimes.conftest import LIMITS, RUNTIMES, WALLED, Bench

LOOK = """
import resource, socket
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
mounts = {line.split()[1]: line.split()[3].split(",") for line in open("/proc/self/mounts")}
def connect():
    socket.create_connection(("127.0.0.1", int(open(IN + "/port").read())), 3)
tell(
    uid=os.getuid(), gid=os.getgid(), capabilities=[status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd")],
    no_new_privileges=status["NoNewPrivs"].strip(), processes=len([name for name in os.listdir("/proc") if name.isdigit()]),
    interfaces=[line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line], connect=refused(connect),
    root=refused(open, "/new", "w"), usr=refused(open, "/usr/new", "w"), etc=refused(open, "/etc/passwd", "a"),
    overwrite=refused(open, IN + "/port", "w"), add=refused(open, IN + "/new", "w"),
    model=refused(open, IN + "/model/new", "w"), model_read=open(IN + "/model/weights").read(),
    chroot=refused(os.chroot, "/tmp"), tmp=refused(open, "/tmp/new", "w"), flags={at: mounts[at] for at in ("/", "/in", "/in/model", "/tmp")},
    limits={name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CPU")},
    home=os.environ["HOME"], setuid=refused(os.setuid, 0), sockets=os.path.exists("/run/docker.sock"),
    secret="EMPERF_TEST_SECRET" in os.environ,
)
"""  # noqa: E501


@pytest.mark.parametrize("bench", WALLED, indirect=True)
def test_all_walls_stand(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPERF_TEST_SECRET", "1")
    (bench.folder / "model").mkdir()
    (bench.folder / "model" / "weights").write_text("w")
    with socket.create_server(("127.0.0.1", 0)) as server:
        inputs = {"port": str(server.getsockname()[1]).encode()}
        outcome = bench.run(
            LOOK, inputs=inputs, shared={"model": ("sha256:" + "1" * 64, bench.folder / "model")}
        )
    assert outcome.exit_code == 0, outcome.log_tail
    told = bench.told()
    assert (told["uid"], told["gid"]) == (10001, 10001)
    assert set(told["capabilities"]) == {"0" * 16}
    assert told["no_new_privileges"] == "1"
    assert told["processes"] <= 3
    # A kernel may give even an empty network namespace some devices for tunnels: none of them leads out.
    assert not [name for name in told["interfaces"] if name.startswith(("eth", "en", "wl", "docker"))]
    assert told["connect"] in ("ECONNREFUSED", "ENETUNREACH")
    assert {told[name] for name in ("root", "usr", "overwrite", "add", "model")} <= {"EROFS", "EACCES"}
    assert told["etc"] in ("EROFS", "EACCES")
    assert told["model_read"] == "w"
    assert told["chroot"] == "EPERM"
    # No such user in the sandbox's own user namespace.
    assert told["setuid"] in ("EPERM", "EINVAL")
    assert told["tmp"] == "allowed"
    assert {"nosuid", "nodev", "rw"} <= set(told["flags"]["/tmp"])
    # Refusal alone would not do: the owner of these files is another user anyway.
    for at in ("/", "/in", "/in/model"):
        assert "ro" in told["flags"][at], at
    # What ends a container that nobody's clock watches any more: no process can use more within its wall.
    seconds = told["limits"].pop("RLIMIT_CPU")
    assert seconds == ([LIMITS.wall_s * LIMITS.cpus + 60] * 2 if bench.runtime.name == "docker" else [-1, -1])
    assert told["limits"] == {
        "RLIMIT_CORE": [0, 0],
        "RLIMIT_NOFILE": [4096, 4096],
        "RLIMIT_FSIZE": [LIMITS.output_bytes] * 2,
    }
    assert told["home"] == "/tmp"
    assert not told["sockets"]
    assert not told["secret"]


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_fork_bomb_ends_at_the_pids_limit(bench: Bench) -> None:
    bench.needs_cgroup()
    outcome = bench.run(
        """
        import signal
        children = []
        try:
            while len(children) < 400:
                child = os.fork()
                if not child:
                    time.sleep(60)
                children.append(child)
        except OSError as error:
            tell(children=len(children), error=errno.errorcode[error.errno])
        """,
        pids=40,
    )
    told = bench.told()
    assert told["error"] == "EAGAIN"
    assert 30 < told["children"] < 40
    assert not outcome.timed_out


@pytest.mark.parametrize("bench", RUNTIMES, indirect=True)
def test_a_file_ends_at_the_size_limit(bench: Bench) -> None:
    bench.run(
        """
        with open(OUT + "/big", "wb") as file:
            told = refused(lambda: [file.write(bytes(1 << 20)) and file.flush() for _ in range(9)])
        sparse = refused(os.truncate, OUT + "/big", 1 << 40)
        import resource
        tell(write=told, sparse=sparse, size=os.path.getsize(OUT + "/big"))
        """,
        output_bytes=4 << 20,
    )
    assert bench.told() == {"write": "EFBIG", "sparse": "EFBIG", "size": 4 << 20}


@pytest.mark.parametrize("bench", WALLED, indirect=True)
def test_tmp_ends_at_its_size(bench: Bench) -> None:
    bench.run(
        """
        with open("/tmp/big", "wb", buffering=0) as file:
            told = refused(lambda: [file.write(bytes(1 << 20)) for _ in range(20)])
        tell(write=told, size=os.path.getsize("/tmp/big"))
        """
    )
    assert bench.told()["write"] == "ENOSPC"
    assert bench.told()["size"] <= LIMITS.tmp_bytes


@pytest.mark.parametrize("bench", WALLED, indirect=True)
def test_no_process_of_the_host_can_be_seen_or_killed(bench: Bench) -> None:
    bench.run(f"tell(kill=refused(os.kill, {os.getpid()}, 0), exists=os.path.exists('/proc/{os.getpid()}'))")
    assert bench.told() == {"kill": "ESRCH", "exists": False}
