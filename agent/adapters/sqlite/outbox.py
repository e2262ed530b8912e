"""The outbox: what is accepted is durable, goes out in order, and is bounded.

While the link keeps up, records are sent from memory (`_recent`); the table is read only when that
tail was cut, after a restart or a long time offline.  Past its bound the oldest records of the
lowest priority are given up, counted in rows, and reported as gaps.
"""

import asyncio
import contextlib
import socket
import sqlite3
import threading
from collections import deque
from collections.abc import Container, Mapping, Sequence
from itertools import islice

from agent.adapters.sqlite.database import Database
from agent.ports import Entry, Record

RECENT_BYTES_MAX = 8 * 2**20  # of records kept in memory beside the table
OVERHEAD_BYTES = 64  # of a row, beside topic and payload

_SIZE = f"length(topic)+length(payload)+{OVERHEAD_BYTES}"


class SqliteOutbox:
    """The `Outbox` port."""

    def __init__(
        self,
        database: Database,
        bytes_max: int,
        recent_bytes_max: int = RECENT_BYTES_MAX,
        *,
        epoch_least: int = 1,
    ) -> None:
        self._database = database
        self._bytes_max = bytes_max
        self._recent_bytes_max = recent_bytes_max
        self._lock = threading.Lock()
        self._ticket = self._durable = 0
        self._recent: deque[tuple[int, Record]] = deque()
        self._recent_bytes = 0
        self._gaps: list[tuple[str, str, int, int]] = []
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._is_told = False  # a byte waits in the socket pair
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        stock = database.call(lambda c: _take_stock(c, epoch_least))
        self._records, self._bytes, self._given_up, self._epoch, self._floor = stock
        self._newest = self._floor  # the highest id given away
        database.watch(self._after_commit)

    # ---- the lane's side ----

    def add(self, entry: Entry) -> int:
        """Queue for the next commit; returns the ticket that `committed` will reach."""
        with self._lock:
            self._ticket += 1
            ticket = self._ticket
            first = self._newest + 1
            self._newest += len(entry.records)
            self._database.submit(
                lambda c: _insert(c, entry, first), lambda _: self._inserted(ticket, entry, first)
            )
        return ticket

    def committed(self) -> int:
        """The highest durable ticket; quiets `fileno`."""
        if self._is_told:
            self._reader.recv(1)
            self._is_told = False  # before the ticket is read: a commit after it tells again
        return self._durable

    def fileno(self) -> int:
        """Readable after a commit."""
        return self._reader.fileno()

    def accounts(self) -> Mapping[tuple[str, str], bytes]:
        """The accounts as last committed."""
        rows = self._database.call(
            lambda c: c.execute("SELECT stream, model, body FROM account").fetchall()
        )
        return {(stream, model): body for stream, model, body in rows}

    def marks(self) -> Mapping[str, bytes]:
        """The source marks as last committed."""
        return dict(
            self._database.call(lambda c: c.execute("SELECT stream, body FROM mark").fetchall())
        )

    def epoch(self) -> int:
        """1 for the first store this device had; rises only if a store was lost."""
        return self._epoch

    # ---- the uplink's side ----

    async def batch(self, after: int, records_max: int) -> Sequence[tuple[int, Record]]:
        """The oldest durable records with ids above `after`; waits until there is at least one."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        self._waiters.append(waiter)
        try:
            while True:
                event.clear()
                if after < self._floor:  # older than what is in memory
                    future = self._database.future(lambda c: _select(c, after, records_max))
                    if found := await asyncio.wrap_future(future):
                        return found
                if found := self._from_memory(after, records_max):
                    return found
                await event.wait()
        finally:
            self._waiters.remove(waiter)

    def accept(self, ids: Sequence[int]) -> None:
        """The far side has these: forget them."""
        gone = set(ids)
        with self._lock:
            while self._recent and self._recent[0][0] in gone:
                gone.discard(self._recent[0][0])
                self._forget_oldest()
            if gone:  # one in the middle of a window has failed
                self._drop(gone)
        self._database.submit(lambda c: _delete(c, ids), self._deleted, urgent=False)

    def depth(self) -> Mapping[str, int]:
        """records, bytes, gaps (rows given up for want of room)."""
        return {"records": self._records, "bytes": self._bytes, "gaps": self._given_up}

    def take_gaps(self) -> Sequence[tuple[str, str, int, int]]:
        """(stream, model, first seq, rows) of what was given up since last asked."""
        with self._lock:
            gaps, self._gaps = self._gaps, []
        return gaps

    def close(self) -> None:
        """Let go of the descriptors; the database is closed by its owner."""
        self._reader.close()
        self._writer.close()

    # ---- in the writer thread, after a commit ----

    def _inserted(self, ticket: int, entry: Entry, first: int) -> None:
        with self._lock:
            for record_id, record in enumerate(entry.records, first):
                self._recent.append((record_id, record))
                self._recent_bytes += _weight(record)
                self._records += 1
                self._bytes += _weight(record)
            while self._recent_bytes > self._recent_bytes_max:
                self._forget_oldest()
            self._durable = ticket
            if self._bytes > self._bytes_max:
                excess = self._bytes - self._bytes_max
                self._database.submit(lambda c: _evict(c, excess), self._evicted)

    def _evicted(self, gone: Sequence[tuple[int, int, int, str, str, int]]) -> None:
        ids = {record_id for record_id, *_ in gone}
        with self._lock:
            for _, size, rows, stream, model, first_seq in gone:
                self._records -= 1
                self._bytes -= size
                self._given_up += rows
                self._gaps.append((stream, model, first_seq, rows))
            self._drop(ids)

    def _deleted(self, gone: tuple[int, int]) -> None:
        with self._lock:
            self._records -= gone[0]
            self._bytes -= gone[1]

    def _after_commit(self) -> None:
        if not self._is_told:
            with contextlib.suppress(OSError):  # closed: nobody listens any more
                self._writer.send(b"\0")
                self._is_told = True  # after the byte: who sees it finds one
        for loop, event in list(self._waiters):
            with contextlib.suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(event.set)

    def _forget_oldest(self) -> None:
        record_id, record = self._recent.popleft()
        self._recent_bytes -= _weight(record)
        self._floor = record_id

    def _drop(self, ids: Container[int]) -> None:
        kept = [pair for pair in self._recent if pair[0] not in ids]
        self._recent = deque(kept)
        self._recent_bytes = sum(_weight(record) for _, record in kept)

    def _from_memory(self, after: int, records_max: int) -> list[tuple[int, Record]]:
        with self._lock:
            newer = (pair for pair in self._recent if pair[0] > after)
            return list(islice(newer, records_max))


def _weight(record: Record) -> int:
    return len(record.topic) + len(record.payload) + OVERHEAD_BYTES


def _take_stock(connection: sqlite3.Connection, epoch_least: int) -> tuple[int, int, int, int, int]:
    connection.execute(
        "INSERT OR IGNORE INTO meta VALUES ('epoch', ?), ('given_up', 0)", (epoch_least,)
    )
    records, size = connection.execute(f"SELECT count(*), total({_SIZE}) FROM outbox").fetchone()
    newest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name='outbox'").fetchone()
    meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    return records, int(size), meta["given_up"], meta["epoch"], newest[0] if newest else 0


def _insert(connection: sqlite3.Connection, entry: Entry, first: int) -> None:
    rows = [
        (i, r.topic, r.payload, r.rows, r.priority, r.stream, r.model, r.first_seq)
        for i, r in enumerate(entry.records, first)
    ]
    connection.executemany(f"INSERT INTO outbox VALUES (?{', ?' * 7})", rows)
    accounts = [(stream, model, body) for (stream, model), body in entry.accounts.items()]
    connection.executemany("REPLACE INTO account VALUES (?, ?, ?)", accounts)
    connection.executemany("REPLACE INTO mark VALUES (?, ?)", list(entry.marks.items()))


def _select(
    connection: sqlite3.Connection, after: int, records_max: int
) -> list[tuple[int, Record]]:
    rows = connection.execute(
        "SELECT * FROM outbox WHERE id>? ORDER BY id LIMIT ?", (after, records_max)
    ).fetchall()
    return [(row[0], Record(*row[1:])) for row in rows]


def _evict(
    connection: sqlite3.Connection, excess: int
) -> list[tuple[int, int, int, str, str, int]]:
    gone = []
    for row in connection.execute(
        f"SELECT id, {_SIZE}, rows, stream, model, first_seq FROM outbox ORDER BY priority DESC, id"
    ):
        if excess <= 0:
            break
        excess -= row[1]
        gone.append(row)
    connection.executemany("DELETE FROM outbox WHERE id=?", [(row[0],) for row in gone])
    given_up = sum(row[2] for row in gone)
    connection.execute("UPDATE meta SET value=value+? WHERE name='given_up'", (given_up,))
    return gone


def _delete(connection: sqlite3.Connection, ids: Sequence[int]) -> tuple[int, int]:
    """How many were there, and their bytes: a record may have been evicted while it was sent."""
    sizes: list[int] = []
    for first, last in _runs(ids):
        found = connection.execute(
            f"DELETE FROM outbox WHERE id BETWEEN ? AND ? RETURNING {_SIZE}", (first, last)
        )
        sizes += [size for (size,) in found]
    return len(sizes), sum(sizes)


def _runs(ids: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each stretch without a hole."""
    runs: list[tuple[int, int]] = []
    for i in sorted(ids):
        if runs and i <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], i)
        else:
            runs.append((i, i))
    return runs
