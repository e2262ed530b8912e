"""When sessions close: readings with no gap above so much, closed by silence or at a size."""

import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import Array, grown
from agent.core.grouping import Groups
from agent.core.windowing.tails import Closings
from agent.core.windowing.timed import microseconds

_UNBOUNDED = 2**62


class Sessions:
    """Sessions per sensor.

    One ends before a reading more than `gap_s` after its last, when the sensor has been silent for
    that long, with its `readings`-th reading, or before a reading `seconds` after its first.
    """

    timed = False

    def __init__(
        self, gap_s: float, readings: int | None, seconds: float | None, late_s: float
    ) -> None:
        self._gap = round(gap_s * 1e6)
        self._gap_s, self._late_s = gap_s, late_s
        self._readings = readings or _UNBOUNDED
        self._span = None if seconds is None else round(seconds * 1e6)
        self._newest = np.zeros(0, np.int64)  # by key
        self._first = np.zeros(0, np.int64)  # of the open session
        self._open = np.zeros(0, np.int64)  # readings in it; 0: none is open

    def grow(self, keys: int) -> None:
        """Make room for so many keys."""
        self._newest = grown(self._newest, keys)
        self._first = grown(self._first, keys)
        self._open = grown(self._open, keys)

    def push(
        self, groups: Groups, times: NDArray[np.float64], kept: NDArray[np.int64]
    ) -> tuple[Closings, NDArray[np.bool] | None]:
        """See `Counted.push`."""
        now = microseconds(times)
        count = len(now)
        rows = np.arange(count)
        before = np.empty_like(now)
        before[1:] = now[:-1]
        before[groups.starts] = self._newest[groups.unique]
        was_open = self._open[groups.unique]
        begins = now - before > self._gap
        begins[groups.starts] |= was_open == 0
        if self._span is not None:
            self._cut(begins, now, groups)
        # how many readings the session has with each row: rows since it began, or since the batch
        # began plus those it had
        carried = np.zeros(count, np.int64)
        carried[groups.starts] = np.where(begins[groups.starts], 0, was_open)
        since = np.maximum.accumulate(np.where(begins | groups.first, rows, 0))
        size = (rows - since + carried[since]) % self._readings + 1
        had = np.empty_like(size)
        had[1:] = np.where(size[:-1] == self._readings, 0, size[:-1])
        had[groups.starts] = was_open
        broken = np.flatnonzero(begins & (had > 0))
        filled = np.flatnonzero(size == self._readings)
        self._remember(groups, now, size, since, begins)
        row = np.concatenate([broken, filled])
        after = np.arange(len(row)) >= len(broken)
        order = np.argsort(2 * row + after, kind="stable")
        row, after = row[order], after[order]
        ends = kept[row] + groups.ranks()[row] + after
        held = np.where(after, size[row], had[row])
        newest = np.where(after, now[row], before[row]) / 1e6
        return Closings(row, after, groups.keys[row], ends, held, newest), None

    def silent(self, arrived: NDArray[np.float64], now: float, kept: NDArray[np.int64]) -> Closings:
        """What silence has closed by `now`; `arrived` is when each key was last heard."""
        due = (self._open > 0) & (arrived + (self._gap_s + self._late_s) <= now)
        keys = np.flatnonzero(due).astype(np.int32)
        held = self._open[keys]
        self._open[keys] = 0
        return Closings(
            np.arange(len(keys)),
            np.zeros(len(keys), np.bool),
            keys,
            kept[keys],
            held,
            self._newest[keys] / 1e6,
        )

    def next_due(self, arrived: NDArray[np.float64]) -> float | None:
        """When silence will next close something."""
        is_open = self._open > 0
        if not is_open.any():
            return None
        return float((arrived[is_open] + (self._gap_s + self._late_s)).min())

    def _cut(self, begins: NDArray[np.bool], now: NDArray[np.int64], groups: Groups) -> None:
        """Begin a new session where one has lasted `seconds`; loops over such sessions only."""
        assert self._span is not None
        edges = np.flatnonzero(begins | groups.first)
        first = np.where(begins[edges], now[edges], self._first[groups.keys[edges]])
        ends = np.append(edges[1:], len(now))
        for i in np.flatnonzero(now[ends - 1] - first >= self._span).tolist():
            at, end, began = int(edges[i]), int(ends[i]), int(first[i])
            while True:
                at += int(np.searchsorted(now[at:end], began + self._span))
                if at >= end:
                    break
                begins[at] = True
                began = int(now[at])

    def _remember(
        self,
        groups: Groups,
        now: NDArray[np.int64],
        size: NDArray[np.int64],
        since: NDArray[np.int64],
        begins: NDArray[np.bool],
    ) -> None:
        ends = groups.starts + groups.sizes - 1
        self._newest[groups.unique] = now[ends]
        self._open[groups.unique] = np.where(size[ends] == self._readings, 0, size[ends])
        # only sessions bounded in time ask for it, and these are not bounded in readings
        began = since[ends]
        goes_on = ~begins[began]
        self._first[groups.unique] = np.where(goes_on, self._first[groups.unique], now[began])

    def state(self) -> dict[str, Array]:
        """For a snapshot."""
        return {"newest": self._newest, "first": self._first, "open": self._open}

    def load(self, state: dict[str, Array]) -> None:
        """Take up what `state` gave; `grow` was called for its keys."""
        for mine, name in ((self._newest, "newest"), (self._first, "first"), (self._open, "open")):
            mine[: len(state[name])] = state[name]
