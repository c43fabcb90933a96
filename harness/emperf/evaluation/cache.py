"""Keys and values with spare room behind them: a new token is written into it, where a plain cache copies them all."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer

SPARE = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A DynamicLayer in results; `keys` and `values` [rows, groups, length, width] are the heads of larger tensors."""

    _room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        if not self._fits(end):
            self._room = (_larger(self.keys, end + SPARE), _larger(self.values, end + SPARE))
        assert self._room is not None
        keys, values = self._room
        keys[:, :, start:end], values[:, :, start:end] = key_states, value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def _fits(self, end: int) -> bool:
        """Whether the room is still that of `keys` (rows may have been chosen since) and long enough."""
        if self._room is None:
            return False
        room = self._room[0]
        same = room.data_ptr() == self.keys.data_ptr() and room.shape[0] == self.keys.shape[0]
        return same and end <= room.shape[2]


def _larger(held: Tensor, length: int) -> Tensor:
    rows, groups, filled, width = held.shape
    room = held.new_empty((rows, groups, length, width))
    room[:, :, :filled] = held
    return room


def with_room(cache: Any) -> None:
    """Give every layer of `cache` that just grows such room, in place."""
    for layer in cache.layers:
        if type(layer) is DynamicLayer:
            layer.__class__ = RoomyLayer
