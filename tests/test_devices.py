"""GPUs: lent to one cell at a time, awaited, given back."""

from __future__ import annotations

import threading

import pytest

from emperf.devices import Devices
from emperf.errors import UserError


def test_without_gpus_every_cell_is_lent_none() -> None:
    with Devices(()).lent(2) as first, Devices(()).lent(1) as second:
        assert first == second == ()


def test_no_two_cells_have_the_same_gpu() -> None:
    devices, got = Devices((4, 5, 6)), []
    with devices.lent(2) as first:
        waiting = threading.Thread(target=lambda: got.append(taken(devices)))
        waiting.start()
        with devices.lent(1) as second:
            assert (first, second) == ((4, 5), (6,))
        waiting.join(0.2)
        assert waiting.is_alive() and not got
    waiting.join(5)
    assert len(got) == 1 and set(got[0]) <= {4, 5, 6} and len(got[0]) == 2


def taken(devices: Devices) -> tuple[int, ...]:
    with devices.lent(2) as mine:
        return mine


def test_what_fails_gives_its_gpu_back() -> None:
    devices = Devices((0,))
    with pytest.raises(RuntimeError), devices.lent(1):
        raise RuntimeError
    with devices.lent(1) as again:
        assert again == (0,)


def test_more_processes_than_gpus_are_refused() -> None:
    with (
        pytest.raises(UserError, match="2 processes, a GPU each, and this machine has 1"),
        Devices((0,)).lent(2),
    ):
        pass
