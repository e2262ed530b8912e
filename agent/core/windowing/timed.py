"""When spans of event time close: tumbling and sliding windows by duration.

Spans are laid from the epoch: span m is [m·step, m·step + size), in whole microseconds so that no
border is a matter of rounding.  A span closes when a reading of its sensor is not before its end,
or when the sensor has been silent for as long as would have taken it there.  Empty spans are not
spoken of.  What arrives for a span that silence has closed is late.
"""

import math

import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import Array, grown
from agent.core.errors import UnfitError
from agent.core.grouping import Groups
from agent.core.windowing.tails import Closings

OVERLAP_MAX = 4096  # spans one reading may be in
NEVER = -(2**62)


class Timed:
    """Spans of `size_s` seconds, one each `step_s`."""

    timed = True

    def __init__(self, size_s: float, step_s: float, late_s: float) -> None:
        """Raises UnfitError if a span is shorter than 1 µs, or a reading would be in too many."""
        self._size, self._step = round(size_s * 1e6), round(step_s * 1e6)
        self._late_s = late_s
        if self._size < 1 or self._step < 1:
            raise UnfitError("a window's size and step are at least 1 µs")
        if self._size / self._step > OVERLAP_MAX:
            raise UnfitError(
                f"a step of {step_s} s puts each reading into more than {OVERLAP_MAX} windows of "
                f"{size_s} s; make it longer"
            )
        self._newest = np.zeros(0, np.int64)  # of any reading, by key
        self._kept = np.zeros(0, np.int64)  # of a reading that is in a span
        self._closed = np.zeros(0, np.int64)  # spans that end by then are closed

    def grow(self, keys: int) -> None:
        """Make room for so many keys."""
        self._newest = grown(self._newest, keys, NEVER)
        self._kept = grown(self._kept, keys, NEVER)
        self._closed = grown(self._closed, keys, NEVER)

    def push(
        self, groups: Groups, times: NDArray[np.float64], kept: NDArray[np.int64]
    ) -> tuple[Closings, NDArray[np.bool] | None]:
        """See `Counted.push`."""
        now = microseconds(times)
        keep = None if self._step <= self._size else now % self._step < self._size
        before = _shifted(now, groups, self._newest)
        held = before
        number = groups.ranks()
        if keep is not None:
            held = _latest_before(now, keep, groups, self._kept)
            number = np.cumsum(keep) - keep
            number -= np.repeat(number[groups.starts], groups.sizes)
        before = np.maximum(before, groups.spread(self._closed[groups.unique]))
        row, span = self._spans(before, held, now)
        ends = groups.starts + groups.sizes - 1
        self._newest[groups.unique] = now[ends]
        if keep is None:
            self._kept[groups.unique] = now[ends]
        else:
            latest = np.where(keep[ends], now[ends], held[ends])
            self._kept[groups.unique] = latest
        closings = Closings(
            row,
            np.zeros(len(row), np.bool),
            groups.keys[row],
            kept[row] + number[row],
            np.zeros(len(row), np.int64),
            held[row] / 1e6,
            span * self._step,
        )
        return closings, keep

    def silent(self, arrived: NDArray[np.float64], now: float, kept: NDArray[np.int64]) -> Closings:
        """What silence has closed by `now`; `arrived` is when each key was last heard."""
        waited = np.nan_to_num(now - arrived - self._late_s, nan=-1.0, neginf=-1.0)
        keys = np.flatnonzero((waited > 0) & (self._kept > NEVER)).astype(np.int32)
        # one microsecond more, so that what `next_due` named does not fail by rounding
        virtual = self._newest[keys] + np.minimum(waited[keys] * 1e6, 1e15).astype(np.int64) + 1
        before = np.maximum(self._newest[keys], self._closed[keys])
        row, span = self._spans(before, self._kept[keys], virtual)
        which = keys[row]
        self._closed[which] = span * self._step + self._size  # ascending per key: the last stays
        return Closings(
            row,
            np.zeros(len(row), np.bool),
            which,
            kept[which],
            np.zeros(len(row), np.int64),
            self._kept[which] / 1e6,
            span * self._step,
        )

    def next_due(self, arrived: NDArray[np.float64]) -> float | None:
        """When silence will next close something."""
        before = np.maximum(self._newest, self._closed)
        first = (before - self._size) // self._step + 1
        is_open = (self._kept > NEVER) & (first * self._step <= self._kept)
        if not is_open.any():
            return None
        end = (first * self._step + self._size)[is_open]
        wait = (end - self._newest[is_open]) / 1e6
        return float((arrived[is_open] + wait).min()) + self._late_s

    def floor(self, keys: NDArray[np.int32]) -> NDArray[np.float64]:
        """Event time before which a reading of each of `keys` is late: its spans are closed."""
        closed = self._closed[keys]
        return np.where(closed == NEVER, -math.inf, closed / 1e6)

    def _spans(
        self, before: NDArray[np.int64], held: NDArray[np.int64], now: NDArray[np.int64]
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Spans that end after `before` and by `now` and begin by `held`, as (row, number)."""
        first = (before - self._size) // self._step + 1
        last = np.minimum((now - self._size) // self._step, held // self._step)
        count = np.where(held > NEVER, np.maximum(last - first + 1, 0), 0)
        row = np.repeat(np.arange(len(count)), count)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, first[row] + nth

    def state(self) -> dict[str, Array]:
        """For a snapshot."""
        return {"newest": self._newest, "kept": self._kept, "closed": self._closed}

    def load(self, state: dict[str, Array]) -> None:
        """Take up what `state` gave; `grow` was called for its keys."""
        for mine, name in (
            (self._newest, "newest"),
            (self._kept, "kept"),
            (self._closed, "closed"),
        ):
            mine[: len(state[name])] = state[name]


def microseconds(times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Event times in whole microseconds."""
    return np.rint(times * 1e6).astype(np.int64)


def _shifted(
    now: NDArray[np.int64], groups: Groups, newest: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each row the time of the row before it, of the same key."""
    before = np.empty_like(now)
    before[1:] = now[:-1]
    before[groups.starts] = newest[groups.unique]
    return before


def _latest_before(
    now: NDArray[np.int64], keep: NDArray[np.bool], groups: Groups, kept: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each row the time of the latest kept row before it, of the same key."""
    at = np.where(keep, np.arange(len(now)), -1)
    latest = np.empty_like(at)
    latest[1:] = np.maximum.accumulate(at)[:-1]
    latest[:1] = -1
    earlier = latest < np.repeat(groups.starts, groups.sizes)
    return np.where(earlier, groups.spread(kept[groups.unique]), now[np.maximum(latest, 0)])
