"""Rows into spans: what a model scores at once.  One model on one stream, one Windower.

At every moment, for all rows ever pushed:
readings = Σ spans.readings + Σ spans.rejected + Σ spans.expired + pending.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import Array, grown, pack, unpack
from agent.core.errors import RefusedError
from agent.core.features import Rows
from agent.core.grouping import Groups
from agent.core.manifest import Window
from agent.core.windowing.counted import Counted
from agent.core.windowing.lateness import Lateness
from agent.core.windowing.sessions import Sessions
from agent.core.windowing.tails import Closings, Tails
from agent.core.windowing.timed import Timed, microseconds


@dataclass(slots=True)
class Spans:
    """Spans that completed, in the order they did.

    keys      int32 [w]
    times     float64 [w]: event time of the newest reading in each
    values    [w, features] without a window, else [w, length, features], oldest reading first
    readings  how many readings these spans hold that no span held before
    rejected  reason (`late`) -> readings turned away
    expired   readings that no span will ever hold (they fell between two)
    """

    keys: NDArray[np.int32]
    times: NDArray[np.float64]
    values: Array
    readings: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    expired: int = 0

    def __len__(self) -> int:
        return len(self.keys)


class _Part(Protocol):
    """State by key."""

    def grow(self, keys: int) -> None: ...
    def state(self) -> dict[str, Array]: ...
    def load(self, state: dict[str, Array]) -> None: ...


class _Bounds(_Part, Protocol):
    """When spans close."""

    timed: bool

    def push(
        self, groups: Groups, times: NDArray[np.float64], kept: NDArray[np.int64]
    ) -> tuple[Closings, NDArray[np.bool] | None]: ...


class Windower:
    """Turns rows into spans as `window` says; None: each row is a span.

    `late_s` is the accepted lateness in event time; without a window rows are taken as they come.
    Times of arrival (`now`) may come from any clock that does not jump: only their differences
    count.  `dtype` is that of the windows' values: float32 halves what they take.

    pending  readings held that no span has held yet
    """

    def __init__(
        self,
        window: Window | None,
        features: int,
        late_s: float,
        dtype: type[np.floating] = np.float64,
    ) -> None:
        """Raises UnfitError or MisfitError if the window cannot be kept."""
        self.pending = 0
        self._features = features
        self._about = f"windows {features} {late_s} {window!r}"
        self._made = window, features, late_s, dtype
        self._bounds: _Bounds | None = None
        if window is None:
            return
        self._bounds = _bounds_of(window, late_s)
        self._tails = Tails(window.length, features, dtype, timed=self._bounds.timed)
        self._lateness = Lateness(features, late_s)
        self._late_s = late_s
        self._arrived = np.zeros(0)  # by key; NaN: never
        self._resumed = False  # times of arrival are from before a restart

    def push(self, rows: Rows, now: float) -> Spans:
        """Take rows in; the spans they complete come out."""
        if self._bounds is None:
            return Spans(rows.keys, rows.times, rows.values, len(rows))
        self._resume(now)
        if len(rows):
            self._grow(int(rows.keys.max()) + 1)
        ready, on_time = self._lateness.push(rows)
        late = len(rows) - int(np.count_nonzero(on_time))
        self._arrived[rows.keys if not late else rows.keys[on_time]] = now
        self.pending += len(rows) - late
        spans = self._advance(self._bounds, ready)
        if late:
            spans.rejected["late"] = late
        return spans

    def due(self, now: float) -> Spans | None:
        """What silence has completed by `now`; None if nothing."""
        if self._bounds is None:
            return None
        self._resume(now)
        parts: list[Spans] = []
        if len(self._lateness):
            waiting = self._lateness.waiting_keys()
            silent = waiting[self._arrived[waiting] + self._late_s <= now]
            if len(silent):
                parts.append(self._advance(self._bounds, self._lateness.let_go(silent)))
        if isinstance(self._bounds, Timed | Sessions):
            closings = self._bounds.silent(self._arrived, now, self._tails.count)
            if len(closings.keys):
                readings = self._tails.cover(closings)
                self.pending -= readings
                gathered = self._tails.gather(closings)
                parts.append(Spans(closings.keys, closings.times, gathered, readings))
                if isinstance(self._bounds, Timed):
                    keys = np.unique(closings.keys)
                    self._lateness.raise_floor(keys, self._bounds.floor(keys))
        parts = [part for part in parts if len(part) or part.expired]
        return _joined(parts) if parts else None

    def next_due(self) -> float | None:
        """When to call `due` next, by the clock of `now`; None while nothing waits for it."""
        if self._bounds is None:
            return None
        times: list[float] = []
        if len(self._lateness):
            times.append(float(self._arrived[self._lateness.waiting_keys()].min()) + self._late_s)
        if isinstance(self._bounds, Timed | Sessions):
            time = self._bounds.next_due(self._arrived)
            times += [] if time is None else [time]
        if not times:
            return None
        return 0.0 if self._resumed else min(times)

    def snapshot(self) -> bytes:
        """Everything held, for a restart; keys by number."""
        if self._bounds is None:
            return pack({}, self._about)
        arrays = {
            f"{where}.{name}": array
            for where, part in self._parts().items()
            for name, array in part.state().items()
        }
        arrays["arrived"] = self._arrived
        return pack(arrays, self._about)

    def blank(self) -> "Windower":
        """One like this that holds nothing."""
        return Windower(*self._made)

    def rearm(self) -> None:
        """What is told from now on is told by another clock: silence begins anew."""
        self._resumed = self._bounds is not None

    def restore(self, raw: bytes, *, same_clock: bool = False) -> None:
        """Take up what `snapshot` gave; before the first push.

        `same_clock`: times of arrival go on by the clock they were told by before.

        Raises:
            RefusedError: it is of another window, or cannot be read; make a new Windower then.
        """
        arrays = unpack(raw, self._about)
        if self._bounds is None:
            return
        try:
            arrived = arrays.pop("arrived")
            self._grow(len(arrived))
            for where, part in self._parts().items():
                part.load({name: arrays[f"{where}.{name}"] for name in part.state()})
        except (KeyError, ValueError, IndexError) as error:
            raise RefusedError(f"the windows' state cannot be read: {error}") from error
        self._arrived[: len(arrived)] = arrived
        self._resumed = not same_clock
        self.pending = len(self._lateness) + int((self._tails.count - self._tails.covered).sum())

    def _advance(self, bounds: _Bounds, rows: Rows) -> Spans:
        """Rows in order of time per key, through the windows."""
        if not len(rows):
            return Spans(rows.keys, rows.times, self._tails.nothing)
        groups = Groups(rows.keys)
        times, values = rows.times[groups.order], rows.values[groups.order]
        closings, keep = bounds.push(groups, times, self._tails.count[groups.keys])
        readings = self._tails.cover(closings)
        expired = 0
        kept = groups
        if keep is not None and not keep.all():
            expired = len(rows) - int(np.count_nonzero(keep))
            kept, times, values = Groups(groups.keys[keep]), times[keep], values[keep]
        self.pending -= readings + expired
        closings = closings.in_order(groups.order)
        gathered = self._tails.append(kept, values, microseconds(times), closings)
        return Spans(closings.keys, closings.times, gathered, readings, {}, expired)

    def _grow(self, keys: int) -> None:
        if keys > len(self._arrived):
            self._arrived = grown(self._arrived, keys, np.nan)
            for part in self._parts().values():
                part.grow(len(self._arrived))

    def _parts(self) -> dict[str, _Part]:
        assert self._bounds is not None
        return {"tails": self._tails, "bounds": self._bounds, "lateness": self._lateness}

    def _resume(self, now: float) -> None:
        """After a restart, silence begins at the first time we are told."""
        if self._resumed:
            self._arrived[~np.isnan(self._arrived)] = now
            self._resumed = False


def _bounds_of(window: Window, late_s: float) -> _Bounds:
    size, step = window.size, window.step or window.size
    if window.kind == "session":
        assert window.gap is not None
        return Sessions(window.gap, size.readings, size.seconds, late_s)
    if window.kind != "sliding":
        step = size
    if size.readings is not None and step.readings is not None:
        return Counted(size.readings, step.readings)
    assert size.seconds is not None
    assert step.seconds is not None
    return Timed(size.seconds, step.seconds, late_s)


def _joined(parts: list[Spans]) -> Spans:
    if len(parts) == 1:
        return parts[0]
    return Spans(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.values for part in parts]),
        sum(part.readings for part in parts),
        {},
        sum(part.expired for part in parts),
    )
