"""Which sensors a candidate answers for before all: a share of them, always the same ones."""

import zlib

import numpy as np
from numpy.typing import NDArray

from agent.core.blocks import Keys
from agent.runtime.seats import Seat


class Canary:
    """`seat` answers for the sensors whose hash falls into `share` (0 to 1).

    The hash is of the model's and the sensor's name (CRC-32): the same sensors after a restart, and
    other ones for another model.
    """

    def __init__(self, seat: Seat, share: float, model: str, keys: Keys) -> None:
        self.seat = seat
        self._below = share * 2**32
        self._salt = zlib.crc32(model.encode())
        self._keys = keys
        self._chosen = np.zeros(0, bool)  # by key

    def chosen(self, keys: NDArray[np.int32]) -> NDArray[np.bool]:
        """For which of `keys` it answers."""
        known = len(self._chosen)
        if len(self._keys) > known:
            new = [
                zlib.crc32(name.encode(), self._salt) < self._below
                for name in self._keys.names[known:]
            ]
            self._chosen = np.concatenate([self._chosen, np.array(new, bool)])
        return self._chosen[keys]
