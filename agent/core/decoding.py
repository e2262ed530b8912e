"""Payloads of one stream into Blocks: the mouth of the data river.

A bad reading is counted under its reason and costs no other.  Reasons: `malformed`, `size`,
`duplicate_key`, `type`, `not_finite`, `time`, `key`, `keys`; of Sparkplug also `birth`,
`historical`.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from agent.core.blocks import Block, Keys
from agent.core.errors import RefusedError
from agent.core.formats.binary_documents import cbor_reader, msgpack_reader
from agent.core.formats.delimited import CsvReader
from agent.core.formats.instants import absurd, believable, seconds_of
from agent.core.formats.json_documents import JsonReader
from agent.core.formats.keying import KEY_CHARS_MAX, NO_KEY, NO_ROOM, Numbering, TopicKey
from agent.core.formats.packed import PackedReader
from agent.core.formats.plan import Found, Plan, RawKey, Reader, Tally, TopicReader, plan_of
from agent.core.formats.records import told
from agent.core.formats.sparkplug_births import Census
from agent.core.streams import StreamSpec


class Decoder:
    """Turns payloads of `spec` into Blocks with a column for every name in `wanted`.

    keys         the stream's sensors; their numbers are in the Blocks
    last_reject  reason -> a sentence about the latest reading rejected for it
    header       csv: what the columns are called, once known; may be set again after a restart
    census       sparkplug: who was born; its births may be recalled after a restart.  Else None
    """

    def __init__(self, spec: StreamSpec, wanted: Sequence[str]) -> None:
        """Raises RefusedError if the spec cannot be followed."""
        self._spec = spec
        self._wanted = tuple(dict.fromkeys(wanted))
        self.keys = Keys(spec.keys_max)
        self.last_reject: dict[str, str] = {}
        self._by_topic = TopicKey.is_template(spec.key)
        template = TopicKey(spec.key) if self._by_topic else None
        self._numbering = Numbering(self.keys, spec.keys_max, template)
        self.census = Census(spec.keys_max) if spec.format == "sparkplug" else None
        self._plan, self._reader = self._prepare(())

    @property
    def header(self) -> tuple[str, ...]:
        """See the class."""
        return self._reader.header if isinstance(self._reader, CsvReader) else ()

    @header.setter
    def header(self, header: tuple[str, ...]) -> None:
        if isinstance(self._reader, CsvReader) and not self._spec.columns:
            self._reader.header = header

    def peek(self, pick: float) -> Mapping[str, float | str] | None:
        """One of the readings decoded last, whole, where a payload alone does not say it."""
        return self._reader.peek(pick) if isinstance(self._reader, TopicReader) else None

    def want(self, names: Sequence[str]) -> None:
        """Further names are wanted, from the next block on.

        Raises:
            RefusedError: they contradict those wanted already; nothing changes.
        """
        before = self._wanted
        self._wanted = tuple(dict.fromkeys((*before, *names)))
        if self._wanted == before:
            return
        try:
            self._plan, self._reader = self._prepare(self.header)
        except RefusedError:
            self._wanted = before
            raise

    def decode(
        self,
        payloads: Sequence[bytes],
        topics: Sequence[bytes] | None,
        arrived: float,
        now: float,
        *,
        oversize: int = 0,
    ) -> Block:
        """The readings in `payloads`, in order.

        Args:
            payloads: as they came, each one reading or many.
            topics: one for each payload, or None where the source has none.
            arrived: monotonic seconds, passed on.
            now: wall seconds, the time of readings that have none of their own.
            oversize: how many payloads more came that were too big to be taken in.
        """
        tally = Tally(sentences=self.last_reject)
        if oversize:
            why = "a message was larger than mqtt.packet_bytes_max and was passed over"
            tally.reject("size", why, oversize)
        origin: Sequence[int] = range(len(payloads))
        largest = self._spec.payload_bytes_max
        if payloads and max(map(len, payloads)) > largest:
            origin = [i for i in origin if len(payloads[i]) <= largest]
            why = f"a payload has more than {largest} bytes (payload_bytes_max)"
            tally.reject("size", why, len(payloads) - len(origin))
            payloads_kept: Sequence[bytes] = [payloads[i] for i in origin]
        else:
            payloads_kept = payloads
        if isinstance(self._reader, TopicReader):
            found = self._reader.read_with(topics, payloads_kept, origin, tally)
        else:
            found = self._reader.read(payloads_kept, origin, tally)
        times, good = self._timed(found, now, tally)
        keys, good = self._keyed(found, topics, good, tally)
        columns: Mapping[str, NDArray[np.float64]] = {
            name: found.columns[slot] for name, slot in self._plan.slots.items()
        }
        if good is not None:
            keys, times = keys[good], times[good]
            columns = {name: column[good] for name, column in columns.items()}
        return Block(keys, times, columns, arrived, tally.counts, filled=self.census is not None)

    def _timed(
        self, found: Found, now: float, tally: Tally
    ) -> tuple[NDArray[np.float64], NDArray[np.bool] | None]:
        """Event times, and which readings are good; None if all are."""
        if found.times is None:
            return np.full(len(found.origin), now), None
        times = seconds_of(found.times, now)
        if believable(times, now, self._spec.time_s_max_ahead):
            return times, None
        # a reading without a time of its own has the device's, however wrong that is
        bad = absurd(times, now, self._spec.time_s_max_ahead)
        bad &= times != now
        if not bad.any():
            return times, None
        stamp = found.times[int(np.flatnonzero(bad)[-1])]
        what = self._spec.time or "the timestamp"
        why = f"{what} is {_told_time(stamp)}: no time, before 1980, or too far ahead"
        tally.reject("time", why, int(bad.sum()))
        return times, ~bad

    def _keyed(
        self,
        found: Found,
        topics: Sequence[bytes] | None,
        good: NDArray[np.bool] | None,
        tally: Tally,
    ) -> tuple[NDArray[np.int32], NDArray[np.bool] | None]:
        """Key numbers, and which readings are good after all; a bad one never makes a new key."""
        count = len(found.origin)
        if not self._spec.key and self.census is None:
            return np.full(count, self.keys.index("") if count else 0, np.int32), good
        raw, of = self._raw_keys(found, topics)
        keys = self._numbered(raw, of, good)
        if not count or keys.min() >= 0:
            return keys, good
        lacking, full = keys == NO_KEY, keys == NO_ROOM
        if lacking.any():
            last = int(np.flatnonzero(lacking)[-1])
            what = self._spec.key or "the topic"
            one = told(raw[last if of is None else of[last]])
            why = f"{what} gives no key of 1 to {KEY_CHARS_MAX} characters: {one}"
            tally.reject("key", why, int(lacking.sum()))
        if full.any():
            why = f"there are {self._spec.keys_max} sensors already (keys_max)"
            tally.reject("keys", why, int(full.sum()))
        kept = keys >= 0
        return keys, kept if good is None else kept & good

    def _raw_keys(
        self, found: Found, topics: Sequence[bytes] | None
    ) -> tuple[Sequence[bytes | RawKey], NDArray[np.intp] | None]:
        """What the keys are made of, and which of it each reading has; None: the one in its row."""
        if not self._by_topic:
            return found.keys or (), None
        if topics is None:
            return [None] * len(found.origin), None
        if isinstance(found.origin, range) and len(found.origin) == len(topics):
            return topics, None
        return topics, np.asarray(found.origin, np.intp)

    def _numbered(
        self,
        raw: Sequence[bytes | RawKey],
        of: NDArray[np.intp] | None,
        good: NDArray[np.bool] | None,
    ) -> NDArray[np.int32]:
        """The key number of each reading, each key looked up once; 0 for one that is not good."""
        if of is None and good is None:
            return self._numbering.number(raw)
        of = np.arange(len(raw)) if of is None else of
        used = np.zeros(len(raw), np.bool)
        used[of if good is None else of[good]] = True
        at = np.flatnonzero(used)
        numbers = np.zeros(len(raw), np.int32)
        numbers[at] = self._numbering.number([raw[i] for i in at.tolist()])
        keys = numbers[of]
        return keys if good is None else np.where(good, keys, np.int32(0))

    def _prepare(self, header: tuple[str, ...]) -> tuple[Plan, Reader | TopicReader]:
        spec = self._spec
        key = "" if self._by_topic else spec.key
        plan = plan_of(self._wanted, spec.fields, time=spec.time, key=key)
        columns = spec.columns or header
        makers: Mapping[str, Callable[[], Reader | TopicReader]] = {
            "json": lambda: JsonReader(plan, lines=False),
            "ndjson": lambda: JsonReader(plan, lines=True),
            "csv": lambda: CsvReader(plan, columns, fixed=bool(spec.columns)),
            "float32": lambda: PackedReader(plan, spec.columns or tuple(spec.fields.values())),
            "cbor": lambda: cbor_reader(plan),
            "msgpack": lambda: msgpack_reader(plan),
            "sparkplug": lambda: _sparkplug(plan, self.census),
        }
        if spec.format not in makers:
            raise RefusedError(f"stream {spec.name}: there is no format {spec.format!r}")
        if spec.format == "float32" and not (spec.columns or spec.fields):
            raise RefusedError(f"stream {spec.name} is raw float32 and needs columns")
        if spec.format == "sparkplug" and (spec.time or key):
            why = "its times are in its payloads and its sensors in its topics"
            raise RefusedError(f"stream {spec.name} is Sparkplug: {why}; no field can be either")
        return plan, makers[spec.format]()


def _sparkplug(plan: Plan, census: Census | None) -> TopicReader:
    # protobuf takes 30 ms to import: only where it is spoken
    from agent.core.formats.sparkplug import SparkplugReader  # noqa: PLC0415

    assert census is not None
    return SparkplugReader(plan, census)


def _told_time(stamp: object) -> str:
    return str(stamp) if isinstance(stamp, float) else told(stamp)
