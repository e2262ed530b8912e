"""The outbox: what is accepted is durable, goes out by priority and in order, and is bounded.

While the link keeps up, records are sent from memory (`tails`); the table is read only for what
memory has let go, after a restart or a long time offline, and packed there.  What is past the
bound, too old, damaged by the disk, or refused by the broker for good is given up, and every row of
it is told as part of a gap.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Mapping, Sequence

import structlog

from agent.adapters.sqlite import beside, gaps, statements
from agent.adapters.sqlite.ageing import Ageing
from agent.adapters.sqlite.database import RETRY_S, Database
from agent.adapters.sqlite.doorbell import Doorbell
from agent.adapters.sqlite.gaps import Row
from agent.adapters.sqlite.packing import Packed, Packing, apart
from agent.adapters.sqlite.schema import PRIORITY_BITS
from agent.adapters.sqlite.statements import Lost
from agent.adapters.sqlite.tails import Tails
from agent.adapters.sqlite.telling import Telling
from agent.ports import Entry, Gap, Record, Trouble

logger = structlog.get_logger(__name__)

RECENT_BYTES_MAX = 4 * 2**20  # of records kept in memory beside the table
SPARE_BYTES = 256 * 1024  # given up at once on a full disk: deleting takes as much room in the WAL


class SqliteOutbox:
    """The `Outbox` port.  `ageing` tells how old records are; without it none is too old.
    `packing` makes fewer of many small ones.  `found`: how the database was, see there.
    """

    def __init__(
        self,
        database: Database,
        bytes_max: int,
        recent_bytes_max: int = RECENT_BYTES_MAX,
        *,
        epoch_least: int = 1,
        ageing: Ageing | None = None,
        packing: Packing | None = None,
    ) -> None:
        self._database, self.found = database, database.found
        self._bytes_max = bytes_max
        self._room = bytes_max  # less, while the disk has less
        self._lock = threading.Lock()
        self._ticket = self._durable = 0
        self._doorbell = Doorbell()
        stock = database.call(lambda c: statements.take_stock(c, epoch_least))
        self._records, self._bytes, self._newest = stock.records, stock.bytes, stock.newest
        self._settled = stock.newest  # the highest number that memory and table agree on
        self._given_up, self._dead_letters = stock.given_up, stock.dead_letters
        self._epoch = stock.epoch
        self._tails, self._telling = Tails(recent_bytes_max, stock.behind), Telling(stock.gaps)
        self._pinned: frozenset[int] = frozenset()  # given to be sent: not to be given up now
        self._leaving: set[int] = set()  # sent or buried, but the table does not know it yet
        self._ageing = ageing or Ageing()
        database.call(lambda c: self._ageing.begin(c, stock.latest))
        self._packing = packing or Packing(apart)
        self._is_evicting = False
        database.watch(self._doorbell.ring)
        database.relieve(self._spare_some, self._lost)
        self._pack_on()

    # ---- the lane's side ----

    def add(self, entry: Entry) -> int:
        """Queue for the next commit; returns the ticket that `committed` will reach."""
        at = self._ageing.now()
        with self._lock:
            self._ticket += 1
            ticket = self._ticket
            ids = statements.ids_of(entry.records, self._newest)
            self._newest += len(ids)
            self._database.submit(
                lambda c: statements.insert(c, entry, ids, at),
                lambda lost: self._inserted(ticket, entry, ids, lost),
                spare=lambda c: statements.insert_none(c, entry),
            )
        return ticket

    def committed(self) -> int:
        """The highest durable ticket; quiets `fileno`."""
        self._doorbell.quiet()  # before the ticket is read: a commit after it tells again
        return self._durable

    def fileno(self) -> int:
        """Readable after a commit."""
        return self._doorbell.fileno()

    def accounts(self) -> Mapping[tuple[str, str], bytes]:
        """The accounts as last committed."""
        return self._database.call(beside.accounts)

    def marks(self) -> Mapping[str, bytes]:
        """The source marks as last committed."""
        return self._database.call(beside.marks)

    def carried(self, stream: str, model: str) -> Sequence[tuple[int, bytes]]:
        """As last committed."""
        return self._database.call(lambda c: beside.carried(c, stream, model))

    def epoch(self) -> int:
        """1 for the first store this device had; rises only if a store was lost."""
        return self._epoch

    # ---- the uplink's side ----

    async def batch(self, records_max: int) -> Sequence[tuple[int, Record]]:
        """As the port says.  What it gives is not given up until the next call."""
        with self._doorbell.heard() as event:
            while True:
                event.clear()
                if self._telling.has_some:
                    return []
                with self._lock:
                    found, missing = self._tails.next(records_max)
                    self._pinned = frozenset(i for i, _ in found)
                if missing is not None:
                    found = await self._read(missing, records_max)
                    if not found:
                        continue  # nothing was missing, or the disk said no
                if found:
                    return found
                await event.wait()

    async def _read(self, priority: int, records_max: int) -> Sequence[tuple[int, Record]]:
        def read(connection: sqlite3.Connection) -> Sequence[tuple[int, Record]]:
            first, last = statements.span_of(priority)
            with self._lock:
                last = min(last, self._tails.oldest(priority) - 1)
            found, spoilt = statements.select(connection, first, last, records_max)
            with self._lock:
                self._tails.behind[priority] = bool(found or spoilt)
                self._pinned = frozenset(i for i, _ in found)
            self._condemn(spoilt)
            return found

        try:
            return await asyncio.wrap_future(self._database.future(read))
        except sqlite3.Error:
            await asyncio.sleep(RETRY_S)
            return ()

    def accept(self, ids: Sequence[int]) -> None:
        """The far side has these: forget them."""
        self._leave(ids)
        self._database.submit(
            lambda c: statements.delete(c, ids), lambda gone: self._deleted(ids, gone), urgent=False
        )

    def bury(self, record_id: int, why: str) -> None:
        """The far side will never take this one."""
        self._leave([record_id])
        self._database.submit(lambda c: statements.bury(c, record_id, why), self._buried)

    def _condemn(self, ids: Sequence[int]) -> None:
        """What a disk has damaged is never sent."""
        if new := [i for i in ids if i not in self._leaving]:
            logger.error("records damaged on disk, not sent", ids=new)
            self._leave(new)
            self._database.submit(lambda c: statements.condemn(c, new), self._buried)

    def _leave(self, ids: Sequence[int]) -> None:
        with self._lock:
            self._tails.drop(ids)
            self._leaving.update(ids)

    def gaps(self) -> Sequence[Gap]:
        """Some of what is to be told, oldest first."""
        return self._telling.next()

    def told(self, some: Sequence[Gap]) -> None:
        """The far side knows of these."""
        self._telling.leave(some)
        self._database.submit(lambda c: gaps.told(c, some), self._telling.left, urgent=False)

    def tidy(self) -> None:
        """Give up what is too old."""
        if self._ageing.is_due():
            limit = self._ageing.limit()
            self._database.submit(lambda c: self._expire(c, limit), self._lost, urgent=False)
            self._database.submit(self._ageing.store, lambda _: None, urgent=False)

    def depth(self) -> Mapping[str, int]:
        """records, bytes, gaps (rows given up), dead_letters."""
        return {
            "records": self._records,
            "bytes": self._bytes,
            "gaps": self._given_up,
            "dead_letters": self._dead_letters,
        }

    def trouble(self) -> Trouble:
        """As the database has met it."""
        return self._database.trouble()

    def close(self) -> None:
        """Let go of the descriptors; the database is closed by its owner."""
        self._doorbell.close()

    # ---- in the writer thread: what is given up ----

    def _evict(self, connection: sqlite3.Connection) -> Lost:
        """Back under the bound."""
        with self._lock:
            return self._give_up(connection, self._bytes - self._room, "full")

    def _spare_some(self, connection: sqlite3.Connection) -> Lost:
        """The disk is full: room inside the file is the only room there is."""
        with self._lock:
            self._room = max(0, self._bytes - SPARE_BYTES)
            return self._give_up(connection, SPARE_BYTES, "full")

    def _give_up(self, connection: sqlite3.Connection, excess: int, reason: str) -> Lost:
        """The oldest of the lowest priority, `excess` bytes of them."""
        gone = statements.spare(connection, excess, self._settled, self._pinned | self._leaving)
        return self._forget(connection, gone, reason)

    def _expire(self, connection: sqlite3.Connection, limit: float) -> Lost:
        with self._lock:
            gone = statements.aged(connection, limit, self._settled, self._pinned | self._leaving)
            return self._forget(connection, gone, "expired")

    def _forget(self, connection: sqlite3.Connection, gone: Sequence[Row], reason: str) -> Lost:
        self._tails.drop(row.id for row in gone)  # from now on nobody sends them
        for row in gone:  # if this is not committed, they are in the table only
            self._tails.behind[row.id >> PRIORITY_BITS] = True
        return statements.give_up(connection, gone, reason)

    # ---- in the writer thread, after a commit ----

    def _inserted(self, ticket: int, entry: Entry, ids: Sequence[int], lost: Lost | None) -> None:
        with self._lock:
            self._durable = ticket
            if ids:
                self._settled = ids[-1] & ((1 << PRIORITY_BITS) - 1)
            if lost is None:
                for record_id, record in zip(ids, entry.records, strict=True):
                    self._tails.add(record_id, record)
                    self._records += 1
                    self._bytes += statements.weight(record)
            if self._database.has_ballast:
                self._room = self._bytes_max
            if self._bytes > self._room and not self._is_evicting:
                self._is_evicting = True
                self._database.submit(self._evict, self._evicted)
            is_due = self._packing.is_due(self._tails.let_go_bytes)
        if lost is not None:
            self._lost(lost)
        if is_due:
            self._pack_on()

    def _evicted(self, lost: Lost) -> None:
        self._is_evicting = False
        self._lost(lost)

    def _lost(self, lost: Lost) -> None:
        with self._lock:
            self._records -= len(lost.gone)
            self._bytes -= sum(row.bytes for row in lost.gone)
            self._given_up += lost.rows
        self._telling.grow(lost.gaps)

    def _buried(self, lost: Lost) -> None:
        self._dead_letters += len(lost.gone)
        self._lost(lost)
        with self._lock:
            self._leaving.difference_update(row.id for row in lost.gone)

    def _deleted(self, ids: Sequence[int], gone: tuple[int, int]) -> None:
        with self._lock:
            self._leaving.difference_update(ids)
            self._records -= gone[0]
            self._bytes -= gone[1]

    # ---- in the writer thread: what is packed ----

    def _pack_on(self) -> None:
        if self._database.has_ballast:
            self._database.submit(self._pack, self._packed, urgent=False, spare=lambda _: Packed())

    def _pack(self, connection: sqlite3.Connection) -> Packed:
        with self._lock:
            ends = self._tails.ends(self._settled)
            busy = self._pinned | self._leaving
        return self._packing.pack(connection, ends, busy)

    def _packed(self, packed: Packed) -> None:
        with self._lock:
            self._records -= packed.records
            self._bytes -= packed.bytes
        if self._packing.packed(packed):
            self._pack_on()
