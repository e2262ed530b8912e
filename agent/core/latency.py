"""How long scores took, in fixed memory.

Latencies go into logarithmic buckets (2.5 % wide steps would cost more memory than they tell; 7 %
steps from 10 µs to 100 s are 240 integers).  A quantile is the upper edge of its bucket, so it is
never flattered; its relative error is at most one step.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LOWEST_MS = 0.01
STEP = 1.07
BUCKETS = 240
_LOG_STEP = math.log(STEP)


@dataclass(slots=True)
class Latency:
    """A histogram of milliseconds, weighted by rows."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BUCKETS, np.int64))

    def add(self, ms: float, rows: int = 1) -> None:
        """`rows` rows took `ms` each."""
        if ms <= LOWEST_MS:
            bucket = 0
        else:
            bucket = min(BUCKETS - 1, math.ceil(math.log(ms / LOWEST_MS) / _LOG_STEP))
        self.counts[bucket] += rows

    def merge(self, other: "Latency") -> None:
        """Add what `other` has seen."""
        self.counts += other.counts

    def clear(self) -> None:
        """Forget everything."""
        self.counts[:] = 0

    @property
    def rows(self) -> int:
        """How many rows were added."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """Milliseconds that `share` (0 to 1) of the rows did not exceed; NaN if there are none."""
        total = self.rows
        if total == 0:
            return math.nan
        cumulative = np.cumsum(self.counts)
        bucket = int(np.searchsorted(cumulative, math.ceil(share * total)))
        return float(LOWEST_MS * STEP**bucket)


class Recent:
    """Latencies of the last minute or so, as a ring of `slices` histograms of `slice_s` each."""

    def __init__(self, slice_s: float = 10.0, slices: int = 6) -> None:
        self._slice_s = slice_s
        self._ring = [Latency() for _ in range(slices)]
        self._slice = -1

    def add(self, ms: float, rows: int, now: float) -> None:
        """`rows` rows took `ms` each, at monotonic `now`."""
        self._turn(now)
        self._ring[self._slice % len(self._ring)].add(ms, rows)

    def whole(self, now: float) -> Latency:
        """Everything still in the ring."""
        self._turn(now)
        whole = Latency()
        for part in self._ring:
            whole.merge(part)
        return whole

    def parts(self, now: float) -> list[Latency]:
        """The slices still in the ring that have rows, in no order."""
        self._turn(now)
        return [part for part in self._ring if part.rows]

    def _turn(self, now: float) -> None:
        current = int(now / self._slice_s)
        if self._slice < 0:
            self._slice = current
        for passed in range(self._slice + 1, min(current, self._slice + len(self._ring)) + 1):
            self._ring[passed % len(self._ring)].clear()
        self._slice = max(self._slice, current)
