"""The GPU meter, against a module that stands in for pynvml."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from emperf.meters.nvml import GpuMeter


class FakeError(Exception):
    pass


class FakeNvml:
    """Two devices; memory goes up and down, 100 W each."""

    NVMLError = FakeError

    def __init__(self, **broken: Any) -> None:
        self.broken, self.asked, self.open, self.energy = broken, 0, False, 5_000
        self.pids = [{11}, {12}]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"pynvml has no {name}")

    def _fail(self, name: str) -> None:
        if name in self.broken:
            raise self.broken[name]

    def nvmlInit(self) -> None:
        self._fail("init")
        self.open = True

    def nvmlShutdown(self) -> None:
        self.open = False

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._fail("handle")
        return index

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:
        self.asked += 1
        used = 1000 if self.asked <= 2 else 9000 if self.asked <= 6 else 2000
        return SimpleNamespace(used=used)

    def nvmlDeviceGetUtilizationRates(self, device: int) -> Any:
        self._fail("utilisation")
        return SimpleNamespace(gpu=80 if device == 0 else 40)

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:
        self._fail("energy")
        self.energy += 10_000
        return self.energy

    def nvmlDeviceGetPowerUsage(self, device: int) -> int:
        return 100_000

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: int) -> int:
        return 0x01 | (0x44 if device == 1 else 0)

    def nvmlDeviceGetComputeRunningProcesses(self, device: int) -> list[Any]:
        self._fail("processes")
        return [SimpleNamespace(pid=pid) for pid in self.pids[device]]


def test_a_reading_covers_all_devices_of_the_job() -> None:
    nvml = FakeNvml()
    with GpuMeter([0, 1], interval_s=0.02, nvml=nvml) as meter:
        time.sleep(0.3)
        nvml.pids = [{11}, {13}]
    reading = meter.reading
    assert reading is not None
    assert reading.peak_memory_bytes == 2 * 9000 - 2 * 1000
    assert reading.utilisation == pytest.approx(0.6)
    # 15 + 25 kJ at the start, 35 + 45 at the end.
    assert (reading.energy_j, reading.energy_meter) == (40.0, "counter")
    assert reading.throttles == ("power-cap", "thermal-hardware")
    assert reading.other_processes == 3
    assert reading.samples > 4
    assert not nvml.open


def test_without_a_counter_power_is_integrated() -> None:
    with GpuMeter([0, 1], interval_s=0.02, nvml=FakeNvml(energy=FakeError())) as meter:
        time.sleep(0.5)
    assert meter.reading.energy_meter == "power-integral"
    assert meter.reading.energy_j == pytest.approx(100, rel=0.25)


def test_what_a_device_does_not_give_is_none() -> None:
    nvml = FakeNvml(utilisation=FakeError(), processes=FakeError())
    with GpuMeter([0], interval_s=0.02, nvml=nvml) as meter:
        pass
    assert (meter.reading.utilisation, meter.reading.other_processes) == (None, None)
    assert meter.reading.peak_memory_bytes is not None


@pytest.mark.parametrize("broken", ["init", "handle"])
def test_no_driver_or_device_is_no_reading(broken: str) -> None:
    with GpuMeter([0], nvml=FakeNvml(**{broken: FakeError("none")})) as meter:
        pass
    assert meter.reading is None


def test_no_gpus_asks_nothing() -> None:
    with GpuMeter([], nvml=FakeNvml(init=AssertionError())) as meter:
        pass
    assert meter.reading is None


def test_a_failing_job_is_metered_and_its_error_goes_on() -> None:
    meter = GpuMeter([0], interval_s=0.02, nvml=FakeNvml())
    with pytest.raises(KeyboardInterrupt), meter:
        raise KeyboardInterrupt
    assert meter.reading is not None
