"""The newest readings of each sensor, kept so that any span of them is one slice.

A sensor's readings lie in a row of a buffer, oldest first, and move to its front when it is full;
so a reading is copied about twice in its life, and a span is gathered without an index per reading.
Memory depends on the number of sensors and on the window, not on how fast readings come.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from agent.core.arrays import Array, grown
from agent.core.errors import MisfitError, RefusedError
from agent.core.grouping import Groups, Index

KEY_BYTES_MAX = 2**30
_SLACK = (
    64  # readings of room beyond a span, so that a short span does not move its row all the time
)


@dataclass(slots=True)
class Closings:
    """Spans that closed, by key and then in order.

    row    intp [w]: at which row of the groups' order it closed
    after  bool [w]: whether that row is in it (else that row's coming closed it)
    keys   int32 [w]
    ends   int64 [w]: how many of the key's readings had been kept by then; the span is the newest
    sizes  int64 [w]: how many of them it holds, if that is known without their times
    since  int64 [w] or None: instead, it holds those not before this time, in µs
    times  float64 [w]: event time of its newest reading
    """

    row: Index
    after: NDArray[np.bool]
    keys: NDArray[np.int32]
    ends: NDArray[np.int64]
    sizes: NDArray[np.int64]
    times: NDArray[np.float64]
    since: NDArray[np.int64] | None = None

    def in_order(self, arrival: Index) -> "Closings":
        """As they closed, if row i of the groups' order is the `arrival[i]`-th that came."""
        closed = 2 * arrival[self.row] + self.after
        if not (closed[1:] < closed[:-1]).any():
            return self
        order = np.argsort(closed, kind="stable")
        return Closings(
            self.row[order],
            self.after[order],
            self.keys[order],
            self.ends[order],
            self.sizes[order],
            self.times[order],
            None if self.since is None else self.since[order],
        )


class Tails:
    """Per key the newest `length` readings of `features` values; with their times in µs if asked.

    count    int64 [keys]: readings ever kept
    covered  int64 [keys]: of these, how many some span has held
    """

    def __init__(
        self, length: int, features: int, dtype: type[np.floating], *, timed: bool
    ) -> None:
        """Raises MisfitError if one sensor's readings would take more than 1 GiB."""
        room = max(2 * length, length + _SLACK)
        if room * features * np.dtype(dtype).itemsize > KEY_BYTES_MAX:
            raise MisfitError(
                f"a window of {length} readings of {features} features takes more than 1 GiB for "
                "one sensor; make it shorter"
            )
        self._length, self._room, self._timed = length, room, timed
        self._values: Array = np.zeros((0, room, features), dtype)
        self._times = np.zeros((0, room if timed else 0), np.int64)
        self._filled = np.zeros(0, np.int64)
        self.nothing: Array = np.empty((0, length, features), dtype)  # no spans
        self.count = np.zeros(0, np.int64)
        self.covered = np.zeros(0, np.int64)

    def grow(self, keys: int) -> None:
        """Make room for so many keys."""
        if keys > len(self.count):
            self._values = grown(self._values, keys)
            self._times = grown(self._times, keys)
            self._filled = grown(self._filled, keys)
            self.count = grown(self.count, keys)
            self.covered = grown(self.covered, keys)

    def cover(self, closings: Closings) -> int:
        """How many readings the spans of `closings`, by key, hold that none held before."""
        keys = closings.keys
        if not len(keys):
            return 0
        # ends rise with each span of a key, so the differences add up to what is new
        last = np.append(keys[1:] != keys[:-1], True)
        which = keys[last]
        covered = closings.ends[last]
        new = int((covered - self.covered[which]).sum())
        self.covered[which] = covered
        return new

    def append(
        self, groups: Groups, values: Array, times: NDArray[np.int64], closings: Closings
    ) -> Array:
        """Keep rows (in the groups' order) and gather the spans: [w, length, features].

        A span with fewer readings is filled up at the front with its oldest.
        """
        per_round = self._room - self._length
        if not len(groups.sizes) or groups.sizes.max() <= per_round:
            self._write(groups, values, times)
            return self._gather(closings.keys, closings.ends, closings.sizes, closings.since)
        spans = np.empty((len(closings.keys), self._length, values.shape[1]), self._values.dtype)
        turns = np.maximum(closings.ends - self.count[closings.keys] - 1, 0) // per_round
        rounds = groups.ranks() // per_round
        for i in range(int(rounds.max()) + 1):
            now, which = np.flatnonzero(rounds == i), np.flatnonzero(turns == i)
            self._write(Groups(groups.keys[now]), values[now], times[now])
            since = None if closings.since is None else closings.since[which]
            spans[which] = self._gather(
                closings.keys[which], closings.ends[which], closings.sizes[which], since
            )
        return spans

    def gather(self, closings: Closings) -> Array:
        """The spans that close with nothing new."""
        none = Groups(np.empty(0, np.int32))
        features = self._values.shape[2]
        return self.append(none, np.empty((0, features)), np.empty(0, np.int64), closings)

    def _write(self, groups: Groups, values: Array, times: NDArray[np.int64]) -> None:
        keys, sizes = groups.unique, groups.sizes
        full = keys[self._filled[keys] + sizes > self._room]
        if len(full):
            self._move(full)
        at = groups.spread(self._filled[keys]) + groups.ranks()
        self._values[groups.keys, at] = values
        if self._timed:
            self._times[groups.keys, at] = times
        self._filled[keys] += sizes
        self.count[keys] += sizes

    def _move(self, keys: NDArray[np.int32]) -> None:
        """Bring the newest readings of `keys` to the front."""
        newest = self._filled[keys] - self._length
        self._values[keys, : self._length] = _slices(self._values, keys, newest, self._length)
        if self._timed:
            self._times[keys, : self._length] = _slices(self._times, keys, newest, self._length)
        self._filled[keys] = self._length

    def _gather(
        self,
        keys: NDArray[np.int32],
        ends: NDArray[np.int64],
        sizes: NDArray[np.int64],
        since: NDArray[np.int64] | None,
    ) -> Array:
        end = self._filled[keys] - (self.count[keys] - ends)
        if since is None:
            held = np.minimum(sizes, self._length)
        else:
            held = self._held_since(keys, end, since)
        if (held == self._length).all():
            return _slices(self._values, keys, end - self._length, self._length)
        back = np.arange(self._length, 0, -1)  # readings back from the end, oldest first
        at = end[:, None] - np.minimum(back, held[:, None])
        spans: Array = self._values[keys[:, None], at]
        return spans

    def _held_since(
        self, keys: NDArray[np.int32], end: NDArray[np.int64], since: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """How many of the newest readings up to `end` are not before `since`; at least one."""
        back = np.arange(1, self._length + 1)
        at = end[:, None] - back
        recent = (self._times[keys[:, None], np.maximum(at, 0)] >= since[:, None]) & (at >= 0)
        held: NDArray[np.int64] = np.maximum(recent.sum(axis=1), 1)
        return held

    def state(self) -> dict[str, Array]:
        """Everything, for a snapshot: the newest readings only, right-aligned."""
        back = np.arange(self._length, 0, -1)
        at = np.maximum(self._filled[:, None] - back, 0)
        rows = np.arange(len(self.count))[:, None]
        state = {"count": self.count, "covered": self.covered, "values": self._values[rows, at]}
        if self._timed:
            state["times"] = self._times[rows, at]
        return state

    def load(self, state: dict[str, Array]) -> None:
        """Take up what `state` gave.  Raises RefusedError."""
        try:
            count, values = state["count"].astype(np.int64), state["values"]
            self.grow(len(count))
            keys = len(count)
            filled = np.minimum(count, self._length)
            # they come right-aligned and lie left-aligned
            at = np.arange(self._length) + (self._length - filled)[:, None]
            source = np.minimum(at, self._length - 1), np.arange(keys)[:, None]
            self._values[:keys, : self._length] = values[source[1], source[0]]
            if self._timed:
                self._times[:keys, : self._length] = state["times"][source[1], source[0]]
            self._filled[:keys] = filled
            self.count[:keys] = count
            self.covered[:keys] = state["covered"]
        except (KeyError, IndexError, ValueError) as error:
            raise RefusedError(f"the windows' state cannot be read: {error}") from error


def _slices(buffer: Array, keys: NDArray[np.int32], starts: Array, length: int) -> Array:
    """`buffer[key, start : start + length]` for each, as one copy."""
    width = int(np.prod(buffer.shape[2:], dtype=np.intp))
    view = as_strided(
        buffer,
        (len(buffer), buffer.shape[1] - length + 1, length * width),
        (buffer.strides[0], buffer.strides[1], buffer.itemsize),
        writeable=False,
    )
    return view[keys, starts].reshape(len(keys), length, *buffer.shape[2:])
