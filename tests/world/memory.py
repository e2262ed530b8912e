"""What keeps things, without a disk: journal, outbox, store, fetcher.

The contract suites run over journal and outbox here as over the real ones.  Each can be told to
fail, as a disk or a network would.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agent.core.errors import UnavailableError
from agent.core.names import ModelRef
from agent.core.packages import FileEntry, Package
from agent.core.rollout import Rollout
from agent.ports import Entry, Gap, Memory, Partial, Record, Scored, Trouble

OVERHEAD_BYTES = 64  # of a record, beside topic and payload


class Power(BaseException):
    """The plug is pulled: nothing in the agent may catch it."""


class MemoryJournal:
    """The `Journal` port.  `fails` names the saves that fail, counted from 1, and with what."""

    def __init__(self) -> None:
        self.rollouts: dict[str, Rollout] = {}
        self.documents: dict[str, bytes] = {}
        self.saves = 0
        self.fails: dict[int, BaseException] = {}
        self.closed = False

    def load(self, model: str) -> Rollout:
        return self.rollouts.get(model, Rollout())

    def save(self, model: str, rollout: Rollout) -> None:
        self._write()
        self.rollouts[model] = rollout

    def models(self) -> Sequence[str]:
        return list(self.rollouts)

    def load_document(self, name: str) -> bytes | None:
        return self.documents.get(name)

    def save_document(self, name: str, body: bytes) -> None:
        self._write()
        self.documents[name] = body

    def document_names(self) -> Sequence[str]:
        return list(self.documents)

    def drop_documents(self, names: Sequence[str]) -> None:
        self._write()
        for name in names:
            self.documents.pop(name, None)

    def _write(self) -> None:
        if self.closed:
            raise UnavailableError("the journal is closed")
        self.saves += 1
        if (error := self.fails.get(self.saves)) is not None:
            raise error


class MemoryOutbox:
    """The `Outbox` port.  Commits at once, or with `by_hand` when `commit` is called."""

    def __init__(self, bytes_max: int = 2**20, *, by_hand: bool = False) -> None:
        self.entries: list[Entry] = []  # as they were committed
        self.by_hand = by_hand
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._queued: list[tuple[int, Entry]] = []
        self._records: dict[int, Record] = {}
        self._accounts: dict[tuple[str, str], bytes] = {}
        self._marks: dict[str, bytes] = {}
        self._carried: dict[tuple[str, str], dict[int, bytes]] = {}
        self.dead_letters: list[tuple[Record, str]] = []
        self.tidied = 0
        self.disk = Trouble()
        self._untold: dict[int, Gap] = {}
        self._pinned: set[int] = set()  # given to be sent: not to be given up now
        self._ids = 0
        self._given_up = 0
        self._ticket = self._durable = self._id = 0
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def add(self, entry: Entry) -> int:
        with self._lock:
            self._ticket += 1
            self._queued.append((self._ticket, entry))
            ticket = self._ticket
        if not self.by_hand:
            self.commit()
        return ticket

    def commit(self) -> None:
        """Make durable what was added."""
        with self._lock:
            for ticket, entry in self._queued:
                self.entries.append(entry)
                for record in entry.records:
                    self._id += 1
                    self._records[self._id] = record
                self._accounts |= entry.accounts
                self._marks |= entry.marks
                for whose, row in entry.carried.items():
                    rows = {} if row.number == 0 else self._carried[whose]
                    self._carried[whose] = rows | ({row.number: row.body} if row.body else {})
                self._durable = ticket
            self._queued.clear()
            self._evict()
        with contextlib.suppress(BlockingIOError):
            self._writer.send(b"\0")
        for loop, event in list(self._waiters):
            loop.call_soon_threadsafe(event.set)

    def committed(self) -> int:
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        return self._durable

    def fileno(self) -> int:
        return self._reader.fileno()

    def accounts(self) -> Mapping[tuple[str, str], bytes]:
        return dict(self._accounts)

    def marks(self) -> Mapping[str, bytes]:
        return dict(self._marks)

    def carried(self, stream: str, model: str) -> Sequence[tuple[int, bytes]]:
        return sorted(self._carried.get((stream, model), {}).items())

    def epoch(self) -> int:
        return 1

    async def batch(self, records_max: int) -> Sequence[tuple[int, Record]]:
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        self._waiters.append(waiter)
        try:
            while True:
                event.clear()
                with self._lock:
                    if self._untold:
                        return []
                    order = sorted(self._records, key=lambda i: (self._records[i].priority, i))
                    found = [(i, self._records[i]) for i in order[:records_max]]
                    self._pinned = {i for i, _ in found}
                    if found:
                        return found
                await event.wait()
        finally:
            self._waiters.remove(waiter)

    def trouble(self) -> Trouble:
        return self.disk

    def accept(self, ids: Sequence[int]) -> None:
        with self._lock:
            for record_id in ids:
                self._records.pop(record_id, None)

    def bury(self, record_id: int, why: str) -> None:
        with self._lock:
            if (record := self._records.pop(record_id, None)) is not None:
                self.dead_letters.append((record, why))
                self._give_up(record, "refused")

    def gaps(self) -> Sequence[Gap]:
        with self._lock:
            return list(self._untold.values())

    def told(self, gaps: Sequence[Gap]) -> None:
        with self._lock:
            for gap in gaps:
                now = self._untold.pop(gap.id)
                if now.rows > gap.rows:
                    self._ids += 1
                    more = {"id": self._ids, "rows": now.rows - gap.rows}
                    self._untold[self._ids] = replace(now, first_seq=gap.last_seq + 1, **more)

    def tidy(self) -> None:
        self.tidied += 1

    def depth(self) -> Mapping[str, int]:
        with self._lock:
            size = sum(map(_weight, self._records.values()))
            return {
                "records": len(self._records),
                "bytes": size,
                "gaps": self._given_up,
                "dead_letters": len(self.dead_letters),
            }

    def close(self) -> None:
        """Let go of the descriptors."""
        self._reader.close()
        self._writer.close()

    def _evict(self) -> None:
        size = sum(map(_weight, self._records.values()))
        for record_id in sorted(self._records, key=lambda i: (-self._records[i].priority, i)):
            if size <= self._bytes_max:
                return
            if record_id in self._pinned:
                continue
            record = self._records.pop(record_id)
            size -= _weight(record)
            self._give_up(record, "full")

    def _give_up(self, record: Record, reason: str) -> None:
        self._given_up += record.rows
        if not record.rows:
            self._ids += 1
            self._untold[self._ids] = Gap(self._ids, "", record.model, reason, 0, 0, 1)
            return
        key = (record.stream, record.model, reason)
        last = record.first_seq + record.rows - 1
        for gap in self._untold.values():
            if (gap.stream, gap.model, gap.reason) == key and gap.last_seq + 1 == record.first_seq:
                more = {"last_seq": last, "rows": gap.rows + record.rows}
                self._untold[gap.id] = replace(gap, **more)
                return
        self._ids += 1
        self._untold[self._ids] = Gap(self._ids, *key, record.first_seq, last, record.rows)


def _weight(record: Record) -> int:
    return len(record.topic) + len(record.payload) + OVERHEAD_BYTES


class MemoryRing:
    """The `Ring` port.  Bounded by the bytes of the values; `restart` is a new process."""

    def __init__(self, bytes_max: int = 2**20) -> None:
        self.kept: dict[tuple[str, str], list[Scored]] = {}
        self.closed = False
        self._bytes_max = bytes_max
        self._joined: set[tuple[str, str]] = set()
        self._dropped: dict[tuple[str, str], int] = {}

    def begin(self, stream: str, model: str, seq: int) -> None:
        kept = self.kept.setdefault((stream, model), [])
        kept[:] = [one for one in kept if one.seq < seq]
        self._joined.add((stream, model))

    def append(self, stream: str, model: str, scored: Scored) -> None:
        pair = (stream, model)
        kept = self.kept.setdefault(pair, [])
        self._dropped.setdefault(pair, 0)
        if kept and (pair not in self._joined or kept[-1].seq > scored.seq):
            kept[:] = [one for one in kept if one.seq < scored.seq]
        self._joined.add(pair)
        if self.closed or scored.values.nbytes > self._bytes_max:
            self._dropped[pair] += scored.rows
            return
        kept.append(scored)
        while self.bytes() > self._bytes_max:
            most = max(self.kept, key=self._bytes_of)
            self._dropped[most] += self.kept[most].pop(0).rows

    def read(self, stream: str, model: str, seq: int) -> Iterator[Scored]:
        kept = self.kept.get((stream, model), [])
        return iter([one for one in kept if one.seq + one.rows > seq])

    def forget(self, stream: str, model: str, below: int) -> None:
        kept = self.kept.get((stream, model), [])
        kept[:] = [one for one in kept if one.seq + one.rows > below]

    def dropped(self, stream: str, model: str) -> int:
        return self._dropped.get((stream, model), 0)

    def bytes(self) -> int:
        return sum(map(self._bytes_of, self.kept))

    def close(self) -> None:
        self.closed = True

    def restart(self) -> None:
        self.closed = False
        self._joined.clear()
        self._dropped.clear()

    def _bytes_of(self, pair: tuple[str, str]) -> int:
        return sum(one.values.nbytes for one in self.kept[pair])


class OpenMachine:
    """The `Machine` port, of one with any memory; or with `free_mb` of `limit_mb`."""

    def __init__(self) -> None:
        self.limit_mb: float | None = None
        self.free_mb: float | None = None

    def memory(self) -> Memory:
        sizes = (None if mb is None else int(mb * 2**20) for mb in (self.limit_mb, self.free_mb))
        return Memory(*sizes, "a test")

    def architecture(self) -> str:
        return "x86_64"


class MemoryPartial:
    """The `Partial` port."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.body = bytearray(size)
        self.written = 0
        self.closed = False

    def holes(self) -> Sequence[tuple[int, int]]:
        return [(self.written, self.size)] if self.written < self.size else []

    def write(self, offset: int, chunk: bytes) -> None:
        self.body[offset : offset + len(chunk)] = chunk
        self.written = offset + len(chunk)

    def close(self) -> None:
        self.closed = True


class FolderStore:
    """The `Store` port over folders that a test has put in place."""

    def __init__(self) -> None:
        self.folders: dict[ModelRef, Path] = {}
        self.waiting: dict[ModelRef, Path] = {}  # that `adopt` will find
        self.partials: dict[str, MemoryPartial] = {}
        self.kept: list[Sequence[ModelRef]] = []  # of each `collect`
        self.fails: list[Exception] = []  # what the next calls of `adopt` and `collect` raise

    def path_of(self, ref: ModelRef) -> Path | None:
        return self.folders.get(ref)

    def partial(self, package: Package, file: FileEntry) -> MemoryPartial:
        return self.partials.setdefault(file.sha256, MemoryPartial(file.size))

    def fetched(self, package: Package, file: FileEntry) -> bytes | None:
        partial = self.partials.get(file.sha256)
        return bytes(partial.body) if partial is not None and not partial.holes() else None

    def adopt(self, package: Package) -> Path:
        self._fail()
        self.folders[package.ref] = self.waiting[package.ref]
        return self.folders[package.ref]

    def adopt_folder(self, folder: Path) -> Package:
        raise UnavailableError(f"{folder} is not for this store")

    def distrust(self, ref: ModelRef) -> None:
        self.folders.pop(ref, None)

    def collect(self, keep: Sequence[ModelRef]) -> int:
        self._fail()
        self.kept.append(list(keep))
        return 0

    def _fail(self) -> None:
        if self.fails:
            raise self.fails.pop(0)


class MemoryFetcher:
    """The `Fetcher` port: files by digest, and metadata.  `fails` is raised first, one a call."""

    def __init__(self) -> None:
        self.bundle: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.fails: list[Exception] = []
        self.asked = 0  # for metadata

    async def metadata(self) -> Mapping[str, bytes]:
        self.asked += 1
        self._fail()
        return dict(self.bundle)

    async def fetch(self, file: FileEntry, into: Partial, progress: Callable[[int], None]) -> None:
        blob = self.blobs[file.sha256]
        for start, end in into.holes():
            middle = (start + end) // 2
            into.write(start, blob[start:middle])
            progress(middle - start)
            self._fail()
            into.write(middle, blob[middle:end])
            progress(end - middle)

    def _fail(self) -> None:
        if self.fails:
            raise self.fails.pop(0)
