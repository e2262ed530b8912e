"""Readings in columns: what travels from decoding to windows.

A Block is many readings of one stream, in the order they arrived.  There is no Reading object on
the hot path; a reading is a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]


class Keys:
    """Sensor keys of one stream, numbered in the order they were first seen.

    Bounded: past `keys_max` a new key gets -1, and its readings are rejected(keys).
    """

    def __init__(self, keys_max: int = 100_000) -> None:
        self._keys_max = keys_max
        self._index: dict[str, int] = {}
        self.names: list[str] = []

    def __len__(self) -> int:
        return len(self.names)

    def index(self, key: str) -> int:
        """The number of `key`, giving it one if it is new; -1 if there is no room for more."""
        found = self._index.get(key)
        if found is None:
            if len(self.names) >= self._keys_max:
                return -1
            found = self._index[key] = len(self.names)
            self.names.append(key)
        return found


@dataclass(slots=True)
class Block:
    """Readings of one stream in columns; row i of each column is reading i, in order of arrival.

    keys     int32 [n], numbers out of the stream's `Keys`
    times    float64 [n], event time in seconds since 1970-01-01 UTC
    columns  field name -> float64 [n]; NaN where the reading did not carry the field
    arrived  monotonic seconds at which the bytes were received (one per block)
    rejected reason -> readings that could not become a row (they are not in the columns)
    filled   rows have values of earlier readings, where their own did not say them
    """

    keys: NDArray[np.int32]
    times: Column
    columns: Mapping[str, Column]
    arrived: float
    rejected: dict[str, int] = field(default_factory=dict)
    filled: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def readings(self) -> int:
        """How many readings came in, whether they became a row or not."""
        return len(self.keys) + sum(self.rejected.values())


def joined(blocks: Sequence[Block]) -> Block:
    """Blocks of one burst, at least one, as the block they are together."""
    first, *others = blocks
    if not others:
        return first
    rejected: dict[str, int] = {}
    for block in blocks:
        for reason, n in block.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + n
    return Block(
        np.concatenate([block.keys for block in blocks]),
        np.concatenate([block.times for block in blocks]),
        {name: np.concatenate([b.columns[name] for b in blocks]) for name in first.columns},
        first.arrived,
        rejected,
        first.filled,
    )
