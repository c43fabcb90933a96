"""The certified way to run a submission: a hardened container of a Docker engine.

Nothing is shared with the engine but its socket: inputs and outputs are tar streams, through volumes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
from docker.errors import ImageNotFound
from docker.types import Mount

from emperf.core.errors import CellFailure, FailureKind, UserError
from emperf.meters.cgroup import ROOT, Cgroup, is_oom
from emperf.runtimes import ContainerJob, Outcome, OutputFile, watchdog
from emperf.runtimes.dockerio import (
    FAULTS,
    Waiter,
    engine,
    put,
    read_archive,
    remove_labelled,
    shared_volume,
    start,
    state_of,
)
from emperf.runtimes.sandbox import TICK_S, clean_log, container_walls
from emperf.runtimes.starts import RUNNER, bare_start_s
from emperf.runtimes.tars import tar_entry, tar_tree

__all__ = ["DockerRuntime", "bare_start_s", "engine_answers"]
_STATS_S = 1.0
_KILL_S = 30.0


def engine_answers() -> tuple[bool, str]:
    """Whether a Docker engine answers, and its version, or else why not."""
    try:
        return True, str(docker.from_env(timeout=10).api.version()["Version"])
    except FAULTS:
        where = os.environ.get("DOCKER_HOST", "the default socket")
        return False, f"no Docker engine answers at {where}; start one with: tools/engine.sh start"


class DockerRuntime:
    """Runs each job in one container. `reconnect_s`: how long a lost engine is waited for, seconds."""

    name = "docker"
    certifiable = True

    def __init__(self, cgroup_root: Path = ROOT, reconnect_s: float = 60.0) -> None:
        self.cgroup_root, self.reconnect_s = cgroup_root, reconnect_s
        self._images: dict[str, dict[str, Any]] = {}
        self._streams: dict[str, Generator[OutputFile, None, None]] = {}

    def describe(self) -> dict[str, Any]:
        """The engine, and the id and digests of each image used so far. Raises CellFailure(MACHINE)."""
        with engine() as client:
            info, version = client.info(), client.version()
        return {
            "runtime": self.name,
            "engine": version["Version"],
            "api": version["ApiVersion"],
            "kernel": info["KernelVersion"],
            "cgroup_version": info.get("CgroupVersion", "1"),
            "cgroup_driver": info["CgroupDriver"],
            "storage_driver": info["Driver"],
            "isolation": "container: no network, read-only root, no capabilities, no new privileges, no swap",
            "missing": [],
            "images": dict(self._images),
        }

    def run(self, job: ContainerJob, on_tick: Callable[[float], None] | None = None) -> Outcome:
        """As the protocol says. UserError for an image that is missing or brings writable disk of its own."""
        self.cleanup(job)
        try:
            with engine() as client:
                image = self._image(client, job)
                systemd = client.info()["CgroupDriver"] == "systemd"
                slice_ = f"emperf-{job.job_id.replace('-', '_')}.slice"
                parent = slice_ if systemd else f"/emperf/{job.job_id}"
                self._create(client, job, image, self._fill(client, job, image), parent)
                group = Cgroup(f"emperf.slice/{slice_}" if systemd else parent, self.cgroup_root)
                return self._watch(client, job, group, on_tick or (lambda elapsed: None))
        except BaseException:
            with contextlib.suppress(CellFailure):
                self.cleanup(job)
            raise

    def collect(self, job: ContainerJob) -> Iterator[OutputFile]:
        """As the protocol says. Raises CellFailure(BROKE_CONTRACT) at a file over the limit."""
        self._streams[job.job_id] = stream = self._collect(job)
        return stream

    def _collect(self, job: ContainerJob) -> Generator[OutputFile, None, None]:
        with engine() as client:
            if client.inspect_container(_name(job))["State"]["Running"]:
                raise RuntimeError(f"{job.job_id} still runs")
            yield from read_archive(client, _name(job), "/out/.", job.limits.output_bytes)

    def cleanup(self, job: ContainerJob) -> None:
        """Remove the job's containers, volumes and control group. Raises CellFailure(MACHINE)."""
        # An engine that is still sending from a container does not remove it.
        if job.job_id in self._streams:
            self._streams.pop(job.job_id).close()
        with engine() as client:
            remove_labelled(client, f"emperf.job={job.job_id}")
        Cgroup(f"emperf/{job.job_id}", self.cgroup_root).remove()

    def sweep(self, run_id: str) -> int:
        """Remove the containers and volumes of a killed run, but no shared volume that is whole; how many."""
        with engine() as client:
            count, jobs = remove_labelled(client, f"emperf.run={run_id}")
        for job_id in jobs:
            Cgroup(f"emperf/{job_id}", self.cgroup_root).remove()
        return count

    def _image(self, client: Any, job: ContainerJob) -> str:
        if job.image is None:
            raise UserError("the submission names no image", "Build it first: emperf.runtimes.images")
        try:
            found = client.inspect_image(job.image)
        except ImageNotFound:
            fix = "Build it, or pull it by its digest: the harness never pulls"
            raise UserError(f"the image {job.image} is not on this machine", fix) from None
        if found["Config"].get("Volumes"):
            fix = "Remove VOLUME from its Dockerfile: it would be disk outside of the limits"
            raise UserError(f"the image {job.image} declares volumes", fix)
        if not (found["Config"].get("Entrypoint") or found["Config"].get("Cmd")):
            fix = "Give it one, or build it on the base image"
            raise UserError(f"the image {job.image} has no entry point", fix)
        self._images[job.image] = {"id": found["Id"], "digests": found.get("RepoDigests") or []}
        return str(found["Id"])

    def _fill(self, client: Any, job: ContainerJob, image: str) -> list[Mount]:
        """The job's volumes, filled, as the submission's container mounts them."""
        labels = _labels(job)
        inputs, outputs = f"emperf-in-{job.job_id}", f"emperf-out-{job.job_id}"
        for volume in (inputs, outputs):
            client.create_volume(volume, labels=labels)
        entries = [tar_entry(".")]
        for name, content in job.inputs.items():
            if isinstance(content, bytes):
                entries.append(tar_entry(name, content, 0o444))
            else:
                entries += tar_tree(content, name)
        entries += [tar_entry(name) for name in job.shared]
        put(client, image, inputs, entries, labels)
        put(client, image, outputs, [tar_entry(".", owner=RUNNER)], labels)
        mounts = [Mount("/in", inputs, read_only=True, no_copy=True), Mount("/out", outputs, no_copy=True)]
        for name, (digest, folder) in job.shared.items():
            volume = shared_volume(client, image, digest, folder, job.run_id)
            mounts.append(Mount(f"/in/{name}", volume, read_only=True, no_copy=True))
        return mounts

    def _create(self, client: Any, job: ContainerJob, image: str, mounts: list[Mount], parent: str) -> None:
        host = container_walls(client, job.limits, mounts, parent, job.gpus)
        client.create_container(
            image, name=_name(job), labels=_labels(job) | {watchdog.LABEL: watchdog.mark()}, host_config=host,
            user=f"{RUNNER}:{RUNNER}", environment={"HOME": "/tmp"}, healthcheck={"test": ["NONE"]},
        )  # fmt: skip

    def _watch(
        self, client: Any, job: ContainerJob, group: Cgroup, on_tick: Callable[[float], None]
    ) -> Outcome:
        name = _name(job)
        start(client, name)
        began = time.monotonic()
        waiter, killed_at, lost, stats_peak, next_stats = Waiter(name), None, False, 0, began
        while True:
            waiter.join(TICK_S)
            now = time.monotonic()
            group.sample()
            on_tick(now - began)
            if not waiter.is_alive():
                state, away = state_of(
                    client, name, self.reconnect_s, lambda: on_tick(time.monotonic() - began)
                )
                lost |= away or waiter.ended is None
                if not state["Running"]:
                    break
                lost, waiter, killed_at = True, Waiter(name), None
            if now - began > job.limits.wall_s:
                killed_at = killed_at or now
                if now - killed_at > _KILL_S:
                    raise CellFailure(FailureKind.MACHINE, f"{job.job_id} does not die")
                with contextlib.suppress(*FAULTS):
                    client.kill(name)
            if group.peak_bytes is None and now >= next_stats:
                next_stats = now + _STATS_S
                with contextlib.suppress(*FAULTS):
                    usage = client.stats(name, stream=False, one_shot=True).get("memory_stats", {})
                    stats_peak = max(stats_peak, usage.get("max_usage", 0), usage.get("usage", 0))
        group.sample()
        group.remove()
        metered = group.peak_bytes is not None
        peak, meter = (group.peak_bytes, group.meter) if metered else (stats_peak or None, "engine-stats")
        started, finished = (datetime.fromisoformat(state[key]) for key in ("StartedAt", "FinishedAt"))
        engine_wall = (finished - started).total_seconds()
        code = int(state["ExitCode"])
        oom = is_oom(
            code=code,
            killed=killed_at is not None,
            kills=group.oom_kills,
            peak=peak,
            limit=job.limits.memory_bytes,
            flag=state["OOMKilled"],
        )
        if lost and killed_at is None and not oom and code in (137, 143, 255):
            raise CellFailure(FailureKind.MACHINE, f"the engine restarted and took {job.job_id} with it")
        return Outcome(
            exit_code=code,
            wall_s=engine_wall if waiter.ended is None else waiter.ended - began,
            timed_out=killed_at is not None,
            oom_killed=oom,
            peak_memory_bytes=peak,
            memory_meter=meter,
            log_tail=clean_log(client.logs(name)),
            facts={
                "image": self._images[str(job.image)],
                "engine_wall_s": engine_wall,
                "engine_started_at": state["StartedAt"],
                "engine_finished_at": state["FinishedAt"],
                "engine_oom_flag": state["OOMKilled"],
                "cgroup_oom_kills": group.oom_kills,
                "engine_lost": lost,
            },
        )


def _name(job: ContainerJob) -> str:
    return f"emperf-{job.job_id}"


def _labels(job: ContainerJob) -> dict[str, str]:
    return {"emperf.run": job.run_id, "emperf.job": job.job_id}
