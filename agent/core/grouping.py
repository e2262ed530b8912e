"""Rows of many sensors in one batch, seen sensor by sensor, without a loop over either."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]
Number = TypeVar("Number", bound=np.number)


class Groups:
    """The rows of each key in a batch, brought together in their order.

    order   intp [n]: row numbers sorted by key, ties as they came
    keys    the keys in that order
    first   bool [n]: in that order, whether a row is the first of its key
    starts  intp [u]: where each key begins in that order
    unique  int32 [u]: the keys, ascending
    sizes   intp [u]: rows of each
    """

    __slots__ = ("first", "keys", "order", "sizes", "starts", "unique")

    def __init__(self, keys: NDArray[np.int32]) -> None:
        self.order: Index = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]
        self.first = np.empty(len(keys), np.bool)
        self.first[:1] = True
        np.not_equal(self.keys[1:], self.keys[:-1], out=self.first[1:])
        self.starts: Index = np.flatnonzero(self.first)
        self.unique = self.keys[self.starts]
        self.sizes: Index = np.diff(self.starts, append=len(keys))

    def ranks(self) -> Index:
        """For each row in order, how many of its key came before (intp [n])."""
        ranks: Index = np.arange(len(self.keys)) - np.repeat(self.starts, self.sizes)
        return ranks

    def spread(self, values: NDArray[Number]) -> NDArray[Number]:
        """One value per key, as one per row in order."""
        return np.repeat(values, self.sizes)
