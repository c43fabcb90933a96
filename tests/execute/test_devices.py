"""GPUs: lent to one cell at a time, awaited, given back, the first left to evaluation where there are enough."""

from __future__ import annotations

import threading
import time

import pytest

from emperf.core.errors import UserError
from emperf.execute.devices import Devices


def test_without_gpus_every_cell_is_lent_none() -> None:
    devices = Devices((), 2)
    with devices.lent() as first, devices.lent() as second:
        assert first == second == () and devices.cells == 0


def test_no_two_cells_have_the_same_gpu() -> None:
    devices = Devices((3, 4, 5, 6, 7), 2)
    assert devices.cells == 2
    got: list[tuple[int, ...]] = []

    def third() -> None:
        with devices.lent() as mine:
            got.append(mine)

    with devices.lent() as first:
        with devices.lent() as second:
            assert (first, second) == ((4, 5), (6, 7))
            waiting = threading.Thread(target=third)
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive() and not got
        waiting.join(5)
        assert got == [(6, 7)]


def test_what_fails_gives_its_gpu_back() -> None:
    devices = Devices((0,), 1)
    with pytest.raises(RuntimeError), devices.lent():
        raise RuntimeError
    with devices.lent() as again:
        assert again == (0,)


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(UserError, match="2 processes, a GPU each, and this machine has 1"):
        Devices((0,), 2)


def test_no_gpu_lies_idle_where_groups_fill_the_machine() -> None:
    assert Devices(range(8), 4).cells == 2
    assert Devices(range(8), 1).cells == 7 and Devices((0,), 1).cells == 1
    assert Devices(range(8), 3).cells == 2


def test_reading_borrows_the_first_gpu_before_the_next_cell() -> None:
    devices, order = Devices((0, 1), 2), list[str]()

    def read() -> None:
        with devices.reading():
            order.append("read")

    def train() -> None:
        with devices.lent():
            order.append("train")

    with devices.lent() as first:
        assert first == (0, 1)
        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.1)
        cell = threading.Thread(target=train)
        cell.start()
        time.sleep(0.1)
        assert order == []
    reader.join(5), cell.join(5)
    assert order == ["read", "train"]


def test_a_gpu_that_is_kept_for_reading_is_never_waited_for() -> None:
    devices = Devices((0, 1), 1)
    with devices.lent() as taken, devices.reading():
        assert taken == (1,)
