"""When spans of so many readings close: tumbling, count and sliding windows by readings."""

import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import Array, grown
from agent.core.grouping import Groups
from agent.core.windowing.tails import Closings


class Counted:
    """Spans of `size` readings, one each `step`.

    With `step` above `size` the readings between two spans are in none: they are not kept.
    """

    timed = False

    def __init__(self, size: int, step: int) -> None:
        self._size, self._step = size, step
        self._seen = np.zeros(0, np.int64)  # by key

    def grow(self, keys: int) -> None:
        """Make room for so many keys."""
        self._seen = grown(self._seen, keys)

    def push(
        self, groups: Groups, times: NDArray[np.float64], kept: NDArray[np.int64]
    ) -> tuple[Closings, NDArray[np.bool] | None]:
        """What rows (in the groups' order) close, and which of them to keep; None: all.

        `kept` is how many readings of its key had been kept before the batch, per row.
        """
        size, step = self._size, self._step
        ranks = groups.ranks()
        number = groups.spread(self._seen[groups.unique]) + ranks + 1
        self._seen[groups.unique] += groups.sizes
        keep = None
        if step > size:
            in_turn = (number - 1) % step
            keep = in_turn < size
            closed = np.flatnonzero(in_turn == size - 1)
            ends = (number[closed] - 1) // step * size + size
        else:
            closed = np.flatnonzero((number >= size) & ((number - size) % step == 0))
            ends = kept[closed] + ranks[closed] + 1
        count = len(closed)
        closings = Closings(
            closed,
            np.ones(count, np.bool),
            groups.keys[closed],
            ends,
            np.full(count, size, np.int64),
            times[closed],
        )
        return closings, keep

    def state(self) -> dict[str, Array]:
        """For a snapshot."""
        return {"seen": self._seen}

    def load(self, state: dict[str, Array]) -> None:
        """Take up what `state` gave; `grow` was called for its keys."""
        self._seen[: len(state["seen"])] = state["seen"]
