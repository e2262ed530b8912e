"""Small records of one model, one after the other, become one: a day offline at ten rows a second
is 864,000 records of which each is mostly envelope, and a fifth of that when they share it.

Done to what memory has let go, as it is let go, in one transaction a time.  A record made of others
has the number and the age of its last, so that the table stays in order of both.  What is in a
payload only `Join` knows.
"""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.adapters.sqlite import seals
from agent.adapters.sqlite.schema import PRIORITIES
from agent.adapters.sqlite.seals import SEAL, Labels
from agent.adapters.sqlite.statements import OVERHEAD_BYTES, span_of

SMALL_BYTES_MAX = 2048  # larger ones gain little
PACK_BYTES_MAX = 32 * 1024  # that a record is made of, and so also at most what it has
EVERY_BYTES = 2**20  # looked at in one transaction

# Payloads in order as fewer, in order: how many each is made of, and it.  Never raises.
Join = Callable[[Sequence[bytes]], Sequence[tuple[int, bytes]]]


def apart(bodies: Sequence[bytes]) -> Sequence[tuple[int, bytes]]:
    """The `Join` that joins nothing."""
    return [(1, body) for body in bodies]


class Packed(NamedTuple):
    """What one time came to."""

    records: int = 0  # fewer than before
    bytes: int = 0
    begin: Sequence[int] = ()  # by priority, the first id not yet looked at
    is_all: bool = True


@dataclass(slots=True)
class _Run:
    """Records whose rows follow each other."""

    topic: str
    next_seq: int
    size: int = 0
    members: list[tuple[int, Labels]] = field(default_factory=list)  # by id
    bodies: list[bytes] = field(default_factory=list)


class Packing:
    """Goes through the table once, behind those who let go."""

    def __init__(self, join: Join, every_bytes: int = EVERY_BYTES) -> None:
        self._join = join
        self._every_bytes = every_bytes
        self._seen_bytes = 0
        self._begin: Sequence[int] = [span_of(priority)[0] for priority in range(PRIORITIES)]

    def is_due(self, let_go_bytes: int) -> bool:
        """Whether enough was let go since it was last due; `let_go_bytes` in all."""
        if let_go_bytes < self._seen_bytes + self._every_bytes:
            return False
        self._seen_bytes = let_go_bytes
        return True

    def pack(
        self, connection: sqlite3.Connection, ends: Sequence[int], but: Collection[int]
    ) -> Packed:
        """Look on, at most to `ends` (ids by priority), leaving alone those in `but`."""
        begin, looked = list(self._begin), 0
        runs: list[_Run] = []
        for priority, end in enumerate(ends):
            open_: dict[tuple[str, str, str], _Run] = {}
            for i, topic, *rest, seal, body in connection.execute(
                f"SELECT id, topic, rows, stream, model, first_seq, at, {SEAL},"
                " CASE WHEN length(payload)<=? THEN payload END"
                " FROM outbox WHERE id BETWEEN ? AND ? ORDER BY id",
                (SMALL_BYTES_MAX, begin[priority], end),
            ):
                if looked >= self._every_bytes:
                    break
                begin[priority] = i + 1
                labels = Labels(*rest)
                if body is None or not labels.rows or i in but:
                    continue  # what comes behind it does not follow what was before
                if not (seals.message_holds(topic, body, seal) and seals.labels_hold(labels, seal)):
                    continue  # nor is damage to be sealed
                rows, first = labels.rows, labels.first_seq
                looked += len(body) + OVERHEAD_BYTES
                key = (topic, labels.stream, labels.model)
                run = open_.get(key)
                if run is None or run.next_seq != first or run.size + len(body) > PACK_BYTES_MAX:
                    run = open_[key] = _Run(topic, first)
                    runs.append(run)
                run.next_seq = first + rows
                run.size += len(body)
                run.members.append((i, labels))
                run.bodies.append(body)
        saved = [self._rewrite(connection, run) for run in runs if len(run.members) > 1]
        return Packed(
            sum(records for records, _ in saved),
            sum(size for _, size in saved),
            begin,
            looked < self._every_bytes,
        )

    def packed(self, packed: Packed) -> bool:
        """That is durable: go on behind it; whether at once."""
        self._begin = packed.begin or self._begin
        return not packed.is_all

    def _rewrite(self, connection: sqlite3.Connection, run: _Run) -> tuple[int, int]:
        """Records and bytes that there are fewer."""
        at = records = size = 0
        for count, body in self._join(run.bodies):
            members, bodies = run.members[at : at + count], run.bodies[at : at + count]
            at += count
            if count < 2:
                continue
            connection.executemany("DELETE FROM outbox WHERE id=?", [(i,) for i, _ in members[:-1]])
            i, last = members[-1]
            labels = last._replace(
                rows=sum(one.rows for _, one in members), first_seq=members[0][1].first_seq
            )
            connection.execute(
                "UPDATE outbox SET payload=?, rows=?, first_seq=?, seal=? WHERE id=?",
                (body, labels.rows, labels.first_seq, seals.seal(run.topic, body, labels), i),
            )
            records += count - 1
            size += (count - 1) * (len(run.topic) + OVERHEAD_BYTES)
            size += sum(map(len, bodies)) - len(body)
        return records, size
