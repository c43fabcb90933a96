"""What a job did with its GPUs, read from the host through NVIDIA's management library while the job runs."""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_THROTTLES = {
    0x04: "power-cap",
    0x08: "hardware-slowdown",
    0x20: "thermal-software",
    0x40: "thermal-hardware",
    0x80: "power-brake",
}


@dataclass(frozen=True)
class GpuReading:
    """All devices of the job together; a value that the device does not give is None.

    `peak_memory_bytes`: the highest sum of memory in use, less what was in use before the job. `utilisation`:
    mean share of time, 0 to 1, in which some kernel ran. `energy_j`: joules, by `energy_meter` ("counter", or
    "power-integral" of the samples). `throttles`: why a device ran slower, if it did. `other_processes`:
    processes on the devices before the job started or after it ended, so not the job's: with any, no timing
    is clean.
    """

    peak_memory_bytes: int | None
    utilisation: float | None
    energy_j: float | None
    energy_meter: str | None
    throttles: tuple[str, ...]
    other_processes: int | None
    samples: int


class GpuMeter:
    """Samples the devices in a thread, from `with` to its end; then `reading` holds the result.

    `reading` stays None without devices, without NVML, or if NVML fails at the start. `nvml` is the pynvml
    module.
    """

    def __init__(self, devices: Sequence[int], interval_s: float = 0.5, nvml: Any = None) -> None:
        self.reading: GpuReading | None = None
        self._devices, self._interval_s, self._nvml = tuple(devices), interval_s, nvml
        self._handles: list[Any] = []
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._sample_on, daemon=True)
        self._memory: list[int] = []
        self._busy: list[float] = []
        self._power: list[tuple[float, float]] = []
        self._throttles = 0

    def __enter__(self) -> GpuMeter:
        if not self._devices:
            return self
        try:
            self._nvml = self._nvml or importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in self._devices]
        except Exception:
            # No library, no driver, no such device: each has its own kind of error, and none is the job's.
            return self
        self._memory_before = self._sum(lambda device: self._nvml.nvmlDeviceGetMemoryInfo(device).used)
        self._energy_before = self._sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption)
        self._others = self._processes()
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._handles:
            return
        self._stop.set()
        self._thread.join()
        self._sample()
        self.reading = self._read()
        self._nvml.nvmlShutdown()

    def _sample_on(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        memory = self._sum(lambda device: self._nvml.nvmlDeviceGetMemoryInfo(device).used)
        if memory is not None:
            self._memory.append(memory)
        busy = self._sum(lambda device: self._nvml.nvmlDeviceGetUtilizationRates(device).gpu)
        if busy is not None:
            self._busy.append(busy / 100 / len(self._handles))
        power = self._sum(self._nvml.nvmlDeviceGetPowerUsage)
        if power is not None:
            self._power.append((time.monotonic(), power / 1000))
        for device in self._handles:
            with contextlib.suppress(self._nvml.NVMLError):
                self._throttles |= self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)

    def _sum(self, ask: Callable[[Any], int]) -> int | None:
        try:
            return sum(ask(device) for device in self._handles)
        except self._nvml.NVMLError:
            return None

    def _processes(self) -> set[int] | None:
        try:
            return {
                process.pid
                for device in self._handles
                for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(device)
            }
        except self._nvml.NVMLError:
            return None

    def _read(self) -> GpuReading:
        energy, meter = None, None
        after = self._sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption)
        if after is not None and self._energy_before is not None:
            energy, meter = (after - self._energy_before) / 1000, "counter"
        elif len(self._power) > 1:
            steps = zip(self._power, self._power[1:], strict=False)
            energy, meter = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in steps), "power-integral"
        last = self._processes()
        others = None if last is None or self._others is None else len(last | self._others)
        return GpuReading(
            peak_memory_bytes=max(self._memory) - (self._memory_before or 0) if self._memory else None,
            utilisation=sum(self._busy) / len(self._busy) if self._busy else None,
            energy_j=energy,
            energy_meter=meter,
            throttles=tuple(name for bit, name in _THROTTLES.items() if self._throttles & bit),
            other_processes=others,
            samples=len(self._memory),
        )
