"""Readings into the order of their event times, per sensor; what is too late is turned away.

With no accepted lateness a reading older than its sensor's newest is late, and nothing waits.  With
some, readings wait until their sensor's newest is that much ahead of them, or until the sensor has
been silent for that long; a reading behind what was let go is late.
"""

import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import Array, grown
from agent.core.features import Rows
from agent.core.grouping import Groups

WAITING_READINGS_MAX = 262_144  # over all sensors; with more, all are let go


class Lateness:
    """Holds rows of `features` values back for up to `late_s` seconds of event time."""

    def __init__(self, features: int, late_s: float) -> None:
        self._late_s = late_s
        self._newest = np.zeros(0, np.float64)  # by key; -inf: none yet
        self._floor = np.zeros(0, np.float64)  # before it a reading is late
        self._waiting = _rows_of(np.empty((0, features)))  # by key and time, ties as they came

    def __len__(self) -> int:
        return len(self._waiting)

    def grow(self, keys: int) -> None:
        """Make room for so many keys."""
        self._newest = grown(self._newest, keys, -np.inf)
        self._floor = grown(self._floor, keys, -np.inf)

    def raise_floor(self, keys: NDArray[np.int32], floor: NDArray[np.float64]) -> None:
        """What comes before `floor` is late from now on."""
        self._floor[keys] = np.maximum(self._floor[keys], floor)

    def push(self, rows: Rows) -> tuple[Rows, NDArray[np.bool]]:
        """Rows that may go on, each key's in order of time; and which of `rows` are not late."""
        groups = Groups(rows.keys)
        times = rows.times[groups.order]
        newest = self._newest_before(groups, times)
        border = np.maximum(newest - self._late_s, self._floor[groups.keys])
        on_time = np.empty(len(rows), np.bool)
        on_time[groups.order] = times >= border
        ends = groups.starts + groups.sizes - 1
        self._newest[groups.unique] = np.maximum(newest[ends], times[ends])
        taken = rows if on_time.all() else _pick(rows, on_time)
        if self._late_s == 0:
            return taken, on_time
        self._wait(taken)
        self.raise_floor(groups.unique, self._newest[groups.unique] - self._late_s)
        if len(self._waiting) > WAITING_READINGS_MAX:
            return self.let_go(np.unique(self._waiting.keys)), on_time
        return self._release(self._waiting.times <= self._floor[self._waiting.keys]), on_time

    def let_go(self, keys: NDArray[np.int32]) -> Rows:
        """What waits for `keys`, in order; what is older will be late."""
        self.raise_floor(keys, self._newest[keys])
        return self._release(np.isin(self._waiting.keys, keys))

    def waiting_keys(self) -> NDArray[np.int32]:
        """Keys for which something waits."""
        return np.unique(self._waiting.keys)

    def _newest_before(self, groups: Groups, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """For each row in order, the newest time of its key before it."""
        before = np.empty_like(times)
        before[1:] = times[:-1]
        before[groups.starts] = self._newest[groups.unique]
        if (times >= before).all():  # all in order: the row before is the newest
            return before
        # ranks of times are whole numbers, and one key's can be lifted above the last's: so one
        # running maximum serves all keys
        distinct, rank = np.unique(
            np.concatenate([times, before[groups.starts]]), return_inverse=True
        )
        count = len(times)
        lift = np.repeat(np.arange(len(groups.starts)), groups.sizes) * len(distinct)
        shifted = np.empty(count, np.int64)
        shifted[1:] = rank[: count - 1]
        shifted[groups.starts] = rank[count:]
        highest = np.maximum.accumulate(shifted + lift) - lift
        return distinct[highest]

    def _wait(self, rows: Rows) -> None:
        waiting = self._waiting
        merged = Rows(
            np.concatenate([waiting.keys, rows.keys]),
            np.concatenate([waiting.times, rows.times]),
            np.concatenate([waiting.values, rows.values]),
        )
        self._waiting = _pick(merged, np.lexsort((merged.times, merged.keys)))

    def _release(self, which: NDArray[np.bool]) -> Rows:
        released = _pick(self._waiting, which)
        self._waiting = _pick(self._waiting, ~which)
        return released

    def state(self) -> dict[str, Array]:
        """For a snapshot."""
        waiting = self._waiting
        return {
            "newest": self._newest,
            "floor": self._floor,
            "keys": waiting.keys,
            "times": waiting.times,
            "values": waiting.values,
        }

    def load(self, state: dict[str, Array]) -> None:
        """Take up what `state` gave; `grow` was called for its keys."""
        self._newest[: len(state["newest"])] = state["newest"]
        self._floor[: len(state["floor"])] = state["floor"]
        self._waiting = Rows(
            state["keys"].astype(np.int32),
            state["times"].astype(np.float64),
            state["values"].astype(np.float64),
        )


def _rows_of(values: NDArray[np.float64]) -> Rows:
    return Rows(np.empty(0, np.int32), np.empty(0), values)


def _pick(rows: Rows, which: NDArray[np.bool] | NDArray[np.intp]) -> Rows:
    return Rows(rows.keys[which], rows.times[which], rows.values[which])
