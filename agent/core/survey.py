"""What a stream really carries: which fields, how often, in which range, at which rate.

Kept for every stream from its first reading on, whether a model listens or not, so that a model can
be held against it (`contract`).  Memory is fixed: a sample of whole readings, and the last few
intervals of each sensor.  Both are of readings and not of time, so a stream that is quiet for a
night is remembered as it was before; while readings come they are of the last hour.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.core.blocks import Block, Column
from agent.core.formats.peeking import MEMBERS_MAX, Peeker, Reading
from agent.core.quantiles import medians, quantile
from agent.core.streams import StreamSpec

SPAN_S = 3600.0  # what the sample is of, once it is full
SAMPLES = 512
SENSORS = 128  # whose rates are followed at once
INTERVALS = 8  # of each of them
ROWS_AT_ONCE = 512
_EAGER = 64  # the first so many are taken as they come, so that something is known at once
_EAGER_BYTES = 128 * 1024  # decoded for them out of one burst
_SPACING_S = 0.05  # between those after them
_PILE_BLOCKS, _PILE_ROWS = 256, 2048  # of which intervals are worked out at once
_GOLDEN = 0.6180339887498949  # its multiples fall evenly and with no period


@dataclass(frozen=True, slots=True)
class FieldSeen:
    """One field in the sample.

    values   the numbers, ascending
    present  share of the readings in which it was a number
    failed   share in which something else stood there; the latest such thing is `example`
    """

    values: Column
    present: float
    failed: float
    example: str = ""

    def outside(self, low: float, high: float) -> float:
        """The share of its numbers that are below `low` or above `high`."""
        if not len(self.values):
            return 0.0
        below = int(np.searchsorted(self.values, low, "left"))
        above = len(self.values) - int(np.searchsorted(self.values, high, "right"))
        return (below + above) / len(self.values)

    def quantile(self, share: float) -> float:
        """NaN where there was no number."""
        return quantile(self.values, share)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a stream has carried.

    spec      the stream's own description
    readings  how many, since the agent runs
    samples   how many of them were looked into
    fields    by path
    whole     whether that is all the fields there are
    sensors   how many of those that are followed a rate is known of
    rate_hz   of the middle one of them, in event time; None where no sensor has sent twice
    """

    spec: StreamSpec
    readings: int = 0
    samples: int = 0
    fields: Mapping[str, FieldSeen] = field(default_factory=dict)
    whole: bool = True
    sensors: int = 0
    rate_hz: float | None = None


class Survey:
    """Watches one stream.  Not for several threads at once.

    `header` tells what CSV columns are called, where the header line came before this began; `peek`
    gives a reading of those just decoded, where the payload alone does not say it (Sparkplug).
    """

    def __init__(
        self,
        spec: StreamSpec,
        header: Callable[[], tuple[str, ...]] = lambda: (),
        peek: Callable[[float], Reading | None] = lambda _: None,
    ) -> None:
        self._spec = spec
        self._header = header
        self._peek = peek
        self._peeker = Peeker(spec)
        self._readings = 0
        self._turn = 0
        self._sample = _Sample()
        self._began = 0.0  # when the first of it came
        self._spacing = _SPACING_S
        self._next = -np.inf
        self._pace = _Pace()
        self._pile: list[Block] = []
        self._piled = 0

    def saw(self, payloads: Sequence[bytes], block: Block) -> None:
        """`payloads` were decoded to `block`."""
        rows = len(block.keys)
        self._readings += rows
        self._pile.append(block)
        self._piled += rows
        if len(self._pile) >= _PILE_BLOCKS or self._piled >= _PILE_ROWS:
            self._clear()
        if payloads and (block.arrived >= self._next or self._peeker.needs_header):
            self._look(payloads, block.arrived, rows)

    def seen(self) -> Seen:
        """All there is to know, now."""
        self._clear()
        sensors, rate = self._pace.rate()
        fields, samples = self._sample.fields()
        for path in {self._spec.time, *([] if "{" in self._spec.key else [self._spec.key])}:
            fields.pop(path, None)
        whole = self._sample.whole
        return Seen(self._spec, self._readings, samples, fields, whole, sensors, rate)

    def _clear(self) -> None:
        if self._piled:
            self._pace.follow(self._pile)
        self._pile.clear()
        self._piled = 0

    def _look(self, payloads: Sequence[bytes], now: float, rows: int) -> None:
        if self._peeker.needs_header:
            self._peeker.header = self._header()
            if self._peeker.needs_header:
                self._peeker.learn(payloads[0])
        if now < self._next:
            return
        eager = min(rows, _EAGER - self._sample.count, _EAGER_BYTES // (len(payloads[0]) + 1))
        before = self._sample.added
        self._began = now if not before else self._began
        for _ in range(max(1, eager)):
            self._turn += 1
            pick = self._turn * _GOLDEN % 1.0
            if self._spec.format == "sparkplug":
                reading = self._peek(pick)
            else:
                reading = self._peeker.peek(payloads[int(pick * len(payloads))], pick)
            if reading is None or not self._sample.add(reading):
                continue
            span = now - self._began
            if span < SPAN_S:  # else the oldest give way from now on
                self._sample.halve()
                self._spacing = max(self._spacing, 2 * span / SAMPLES)
            self._spacing = min(self._spacing, SPAN_S / SAMPLES)
        if self._sample.count >= _EAGER or self._sample.added == before:
            # at no beat of its own, lest it falls in with the stream's: every other reading
            self._next = now + self._spacing * (0.5 + pick)


class _Sample:
    """Readings as rows of a table; the oldest give way to the newest."""

    def __init__(self) -> None:
        self.whole = True  # no field was left out for want of room
        self._columns: dict[str, int] = {}
        self._examples: dict[str, str] = {}
        self._table = np.empty((SAMPLES, 0))  # NaN: nothing; infinity: no number
        self.added = 0

    @property
    def count(self) -> int:
        """How many readings are in it."""
        return min(self.added, SAMPLES)

    def add(self, reading: Reading) -> bool:
        """Whether the table is full now."""
        self.whole &= len(reading) < MEMBERS_MAX
        for path in [path for path in reading if path not in self._columns]:
            if len(self._columns) < MEMBERS_MAX:
                self._columns[path] = len(self._columns)
            else:
                self.whole = False
        if (lacks := len(self._columns) - self._table.shape[1]) > 0:
            self._table = np.hstack([self._table, np.full((SAMPLES, lacks), np.nan)])
        row = self._table[self.added % SAMPLES]
        row[:] = np.nan
        for path, value in reading.items():
            if (column := self._columns.get(path)) is None:
                continue
            if isinstance(value, str):
                self._examples[path] = value
                row[column] = np.inf
            else:
                row[column] = value
        self.added += 1
        return self.added >= SAMPLES

    def halve(self) -> None:
        """Keep every other reading of a table that has just become full."""
        self._table[: SAMPLES // 2] = self._table[1::2].copy()
        self.added = SAMPLES // 2

    def fields(self) -> tuple[dict[str, FieldSeen], int]:
        """What is in the table, by path, and how many readings that is of."""
        count = self.count
        found = {}
        for path, column in self._columns.items():
            values = self._table[:count, column]
            numbers = np.sort(values[np.isfinite(values)])
            failed = int(np.count_nonzero(np.isinf(values)))
            if len(numbers) or failed:
                found[path] = FieldSeen(
                    numbers, len(numbers) / count, failed / count, self._examples.get(path, "")
                )
        return found, count


class _Pace:
    """The time between readings of each sensor: the last few, in event time.

    Of intervals and not of counts: a silence is one long interval among many, and a backlog that
    comes all at once is not a fast sensor.  Of many sensors every n-th is followed, each reading of
    it: what is passed over are other sensors, and never readings between two that are compared.
    """

    def __init__(self) -> None:
        self._stride = 1  # sensor `i * _stride` has row i; a power of two
        self._rest = 0  # so many piles are passed over
        self._last = np.full(SENSORS, np.nan)  # NaN: never
        self._counts = np.zeros(SENSORS, np.int64)
        self._intervals = np.full((SENSORS, INTERVALS), np.nan)

    def follow(self, blocks: Sequence[Block]) -> None:
        """Take in readings, in order of arrival."""
        if self._rest:
            self._rest -= 1
            return
        keys = np.concatenate([block.keys for block in blocks])
        times = np.concatenate([block.times for block in blocks])
        while int(keys.max()) >= SENSORS * self._stride:
            self._thin()
        if self._stride > 1:
            followed = (keys & (self._stride - 1)) == 0
            keys, times = keys[followed] // self._stride, times[followed]
        if len(keys) and self._take(keys, times) and len(keys) > ROWS_AT_ONCE:
            self._rest = len(keys) // ROWS_AT_ONCE  # fast sensors: a stretch now and then will do
            self._last[:] = np.nan

    def _thin(self) -> None:
        """Follow half as many sensors of twice as many."""
        half = SENSORS // 2
        self._stride *= 2
        for rows, fill in ((self._last, np.nan), (self._counts, 0), (self._intervals, np.nan)):
            rows[:half] = rows[::2].copy()
            rows[half:] = fill

    def _take(self, keys: NDArray[np.int32], times: Column) -> bool:
        """Whether there was an interval in it."""
        order = np.argsort(keys, kind="stable")
        keys, times = keys[order], times[order]
        # readings of one sensor with one time came at once: they share the interval before them
        changes = (keys[1:] != keys[:-1]) | (times[1:] != times[:-1])
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
        sizes = np.diff(np.concatenate([starts, [len(keys)]]))
        keys, times = keys[starts], times[starts]
        before = np.concatenate([[np.nan], times[:-1]])
        first = np.concatenate([[True], keys[1:] != keys[:-1]])
        before[first] = self._last[keys[first]]
        self._last[keys] = times  # of several of one sensor the latest stays
        gaps = (times - before) / sizes
        good = gaps > 0
        found = bool(good.any())
        if found:
            self._keep(keys[good], gaps[good])
        return found

    def _keep(self, keys: NDArray[np.int32], gaps: Column) -> None:
        at = np.arange(len(keys))
        new = np.concatenate([[True], keys[1:] != keys[:-1]])
        rank = at - np.maximum.accumulate(np.where(new, at, 0))
        places = self._counts[keys] + rank
        self._intervals[keys, places % INTERVALS] = gaps
        self._counts[keys] = places + 1

    def rate(self) -> tuple[int, float | None]:
        """How many sensors one is known of, and that of the middle one."""
        known = self._counts > 0
        if not known.any():
            return 0, None
        each = medians(self._intervals[known])
        return len(each), 1.0 / float(medians(each[np.newaxis])[0])
