"""Which GPUs a job gets, against a module that stands in for pynvml."""

from __future__ import annotations

from typing import Any

import pytest

from emperf.core.errors import UserError
from emperf.core.limits import Limits
from emperf.runtimes import gpus
from emperf.runtimes.sandbox import container_walls, process_walls

NAMES = ["GPU-aa11", "GPU-ab22", "GPU-cc33", "GPU-dd44"]


class FakeNvml:
    class NVMLError(Exception):
        pass

    def __init__(self, works: bool = True) -> None:
        self.works, self.open = works, 0

    def nvmlInit(self) -> None:
        if not self.works:
            raise self.NVMLError("no driver")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(NAMES)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return NAMES[handle].encode()


@pytest.mark.parametrize(
    ("chosen", "usable", "expected"),
    [
        (None, 4, (0, 1, 2, 3)),
        ("2,3", 2, (2, 3)),
        (" 3 , 1", 2, (3, 1)),
        ("GPU-cc33,GPU-aa", 2, (2, 0)),
        # As CUDA has it: the list ends at what is no device, or could be two.
        ("1,9,2", 1, (1,)),
        ("1,GPU-a", 1, (1,)),
        ("-1", 0, ()),
        ("", 0, ()),
        ("1,1", 0, ()),
        # torch that was built without CUDA uses none, whatever there is.
        (None, 0, ()),
    ],
)
def test_the_chosen_devices_by_their_physical_numbers(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, usable: int, expected: tuple[int, ...]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    nvml = FakeNvml()
    assert gpus.visible(nvml, usable) == expected
    assert nvml.open == 0


def test_a_part_of_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    with pytest.raises(UserError, match="whole GPUs"):
        gpus.visible(FakeNvml(), 1)


def test_without_nvml_numbers_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert gpus.visible(FakeNvml(works=False), 2) == (2, 5)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpus.visible(FakeNvml(works=False), 2) == (0, 1)
    assert gpus.device_ids((2,), FakeNvml(works=False)) == ["2"]


class FakeClient:
    def create_host_config(self, **given: Any) -> dict[str, Any]:
        return given


@pytest.mark.parametrize(("given", "shared"), [((), None), ((3,), None), ((3, 1), 1 << 30)])
def test_a_container_gets_its_devices_by_name_and_room_to_talk(
    monkeypatch: pytest.MonkeyPatch, given: tuple[int, ...], shared: int | None
) -> None:
    monkeypatch.setattr(gpus, "uuids", lambda nvml=None: NAMES)
    limits = Limits(wall_s=10, memory_bytes=8 << 30, cpus=1, pids=9, output_bytes=9)
    walls = container_walls(FakeClient(), limits, [], "/x", given)
    asked = [name for request in walls["device_requests"] for name in request["DeviceIDs"]]
    assert asked == [NAMES[gpu] for gpu in given]
    assert walls["shm_size"] == shared


def test_shared_memory_stays_within_the_memory_limit() -> None:
    limits = Limits(wall_s=10, memory_bytes=1 << 30, cpus=1, pids=9, output_bytes=9)
    assert container_walls(FakeClient(), limits, [], "/x", (0, 1))["shm_size"] == 1 << 29


def test_a_sandbox_with_several_devices_has_shared_memory_that_can_be_written() -> None:
    command = process_walls([], 1 << 20, {}, shared_bytes=1 << 30)
    at = command.index("/dev/shm")
    assert command[at - 3 : at + 1] == ["--size", str(1 << 30), "--tmpfs", "/dev/shm"]
    assert at < command.index("--remount-ro")
    assert "/dev/shm" not in process_walls([], 1 << 20, {})
