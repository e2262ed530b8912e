"""Rows of nothing but numbers as columns, by way of MessagePack.

To take a struct apart makes a tuple of it, and to put its numbers into columns takes each of them
in hand.  Encoded, all rows of numbers have one length, with each number at its place, and numpy
reads them off: that takes a third of the time.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

_SHORT, _LONG = 1 << 4, 1 << 16  # an array or map of fewer than this has a head of one byte, of 3


class Numbers:
    """Reads off the rows of one struct type, all of whose members may be numbers."""

    def __init__(self, row: type[msgspec.Struct], members: int) -> None:
        """`members`: how many it has; at least one."""
        self._encode = msgspec.msgpack.Encoder().encode
        self._names = [f"m{i}" for i in range(members)]
        zeros = [0.0] * members
        plain = self._encode(row(*zeros))
        others = [self._encode(row(*zeros[:i], -0.0, *zeros[i + 1 :])) for i in range(members)]
        places = [_first_difference(plain, other) for other in others]  # it is in the first bit
        self._row_bytes = len(plain)
        self._row = np.dtype(
            {
                "names": self._names,
                "formats": [">f8"] * members,
                "offsets": places,
                "itemsize": len(plain),
            }
        )
        # By these bytes a row tells that all members are there and each is a number: they say what
        # follows, so the first that is something else has another byte at its place.
        telling = [*range(_head_bytes(members)), *(place - 1 for place in places)]
        self._telling = np.array(telling, np.intp)
        self._told = np.frombuffer(plain, np.uint8)[self._telling]

    def columns(self, rows: Sequence[Any]) -> NDArray[np.float64] | None:
        """float64 [members, number of rows]; None if something in `rows` is no number."""
        count, begin = len(rows), _head_bytes(len(rows))
        try:
            encoded = self._encode(rows)
        except (ValueError, OverflowError):  # text that is no Unicode, or a very large integer
            return None
        if len(encoded) != begin + count * self._row_bytes:
            return None
        letters = np.frombuffer(encoded, np.uint8, offset=begin).reshape(count, self._row_bytes)
        if not (letters[:, self._telling] == self._told).all():
            return None
        table = np.frombuffer(encoded, self._row, offset=begin)
        columns = np.empty((len(self._names), count))
        for column, name in zip(columns, self._names, strict=True):
            column[:] = table[name]
        return columns


def _head_bytes(size: int) -> int:
    """Of the encoding of an array or map of `size` members."""
    return 1 if size < _SHORT else 3 if size < _LONG else 5


def _first_difference(one: bytes, other: bytes) -> int:
    return next(at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
