"""The newest records in memory, by priority, so that what is sent soon is not read back from disk.

A priority is *behind* while the table may have records of it that are older than those in memory.
Not for itself safe between threads: its owner holds a lock.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from agent.adapters.sqlite.schema import PRIORITIES, PRIORITY_BITS
from agent.adapters.sqlite.statements import span_of, weight
from agent.ports import Record

OBJECT_BYTES = 256  # that a record takes in memory beside its topic and payload


class Tails:
    """At most `bytes_max` of records."""

    def __init__(self, bytes_max: int, behind: Iterable[int]) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self.let_go_bytes = 0  # in all, for want of room
        self._kept: list[OrderedDict[int, Record]] = [OrderedDict() for _ in range(PRIORITIES)]
        self.behind = [False] * PRIORITIES
        for priority in behind:
            self.behind[priority] = True

    def add(self, record_id: int, record: Record) -> None:
        """The newest of its priority; the oldest of the lowest make room for it."""
        self._kept[record_id >> PRIORITY_BITS][record_id] = record
        self._bytes += weight(record) + OBJECT_BYTES
        for priority in reversed(range(PRIORITIES)):
            kept = self._kept[priority]
            while kept and self._bytes > self._bytes_max:
                _, gone = kept.popitem(last=False)
                self._bytes -= weight(gone) + OBJECT_BYTES
                self.let_go_bytes += weight(gone)
                self.behind[priority] = True

    def drop(self, ids: Iterable[int]) -> None:
        """These are gone from the table, or about to be."""
        for record_id in ids:
            gone = self._kept[record_id >> PRIORITY_BITS].pop(record_id, None)
            if gone is not None:
                self._bytes -= weight(gone) + OBJECT_BYTES

    def oldest(self, priority: int) -> int:
        """The id from which on all of `priority` is in memory."""
        return next(iter(self._kept[priority]), span_of(priority)[1] + 1)

    def ends(self, settled: int) -> list[int]:
        """By priority, the last id up to which only the table has records, of those `settled`."""
        return [
            min(self.oldest(priority) - 1, span_of(priority)[0] + settled)
            for priority in range(PRIORITIES)
        ]

    def next(self, records_max: int) -> tuple[Sequence[tuple[int, Record]], int | None]:
        """What to send next, as far as memory knows; or the priority that has to be read from the
        table first.
        """
        found: list[tuple[int, Record]] = []
        for priority in range(PRIORITIES):
            if self.behind[priority]:
                return found, None if found else priority
            for pair in self._kept[priority].items():
                if len(found) == records_max:
                    return found, None
                found.append(pair)
        return found, None
