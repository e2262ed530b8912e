"""The file, its one connection and its one writer thread.

Everyone hands the thread functions of the connection; it runs them in batches, one transaction a
batch.  It decides nothing about what is in the tables.
"""

import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agent.core.errors import RefusedError, UnavailableError

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], Any]
Order = tuple[Job, Future[Any] | None, Callable[[Any], None] | None]

logger = structlog.get_logger(__name__)

RETRY_S = 0.5  # between tries while the disk says no
PATIENT_S_MAX = 0.05  # that an order without hurry waits for a commit to ride with
LOCK_S_MAX = 5.0  # for an agent that is just stopping
PRAGMAS = (
    "locking_mode=EXCLUSIVE",
    "journal_mode=WAL",
    "synchronous=FULL",
    "wal_autocheckpoint=256",
    "journal_size_limit=1048576",
    "mmap_size=0",
)
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE rollout (model TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE document (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE account (
    stream TEXT NOT NULL, model TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (stream, model)
) WITHOUT ROWID;
CREATE TABLE mark (stream TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL,
    rows INTEGER NOT NULL, priority INTEGER NOT NULL,
    stream TEXT NOT NULL, model TEXT NOT NULL, first_seq INTEGER NOT NULL
);
"""


class _DamagedError(sqlite3.DatabaseError):
    """What is in the file is no database of ours."""


class Database:
    """One SQLite file, opened once; `close` commits what was asked for before it."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"cannot make the store {path.parent}: {error.strerror}; see store.dir"
            raise UnavailableError(why) from error
        self.path = path
        self._orders: deque[Order] = deque()
        self._wake = threading.Condition()
        self._is_urgent = False  # some order does not want to wait for others
        self._closing = False
        self._watchers: list[Callable[[], None]] = []
        self._connection = self._opened()
        self._thread = threading.Thread(target=self._write, name="sqlite", daemon=True)
        self._thread.start()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` in the writer thread after each commit; it must not raise or wait."""
        self._watchers.append(watcher)

    def submit(
        self,
        job: Callable[[sqlite3.Connection], T],
        done: Callable[[T], None],
        *,
        urgent: bool = True,
    ) -> None:
        """Have `job` done in the next commit, then `done` with its result in the writer thread.

        What is not `urgent` rides with the next commit that is, or makes one of its own a little
        later: a sync costs the same for one order as for many.  A disk that says no is tried again
        until it says yes: nothing submitted is lost or reordered while the process lives.
        """
        self._put((job, None, done), urgent=urgent)

    def future(self, job: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        """As `submit`; the future is done when the commit that holds `job` is durable."""
        future: Future[T] = Future()
        self._put((job, future, None), urgent=True)
        return future

    def call(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Do `job` and wait until it is durable.

        Raises:
            UnavailableError: the disk or the database said no.
        """
        try:
            return self.future(job).result()
        except sqlite3.Error as error:
            raise UnavailableError(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Commit what was asked for, then let go of the file.  Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _put(self, order: Order, *, urgent: bool) -> None:
        with self._wake:
            if self._closing:
                msg = f"{self.path} is closed"
                raise UnavailableError(msg)
            self._orders.append(order)
            self._is_urgent |= urgent
            if urgent or len(self._orders) == 1:
                self._wake.notify()

    def _opened(self) -> sqlite3.Connection:
        """The file, or where it is damaged a fresh one: what scores must not wait for a repair."""
        try:
            return self._open()
        except _DamagedError as error:
            aside = self.path.with_name(f"{self.path.name}.bad")
            logger.error("database damaged, set aside", path=str(aside), why=str(error))  # noqa: TRY400
            for suffix in ("", "-wal", "-shm"):
                part = self.path.with_name(self.path.name + suffix)
                if part.exists():
                    part.replace(aside.with_name(aside.name + suffix))
            return self._open()

    def _open(self) -> sqlite3.Connection:
        """Raises RefusedError where another agent has it, UnavailableError on any other no."""
        connection = sqlite3.connect(
            self.path, timeout=LOCK_S_MAX, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}").fetchall()
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise _DamagedError(found)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                script = f"BEGIN; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
                connection.executescript(script)
        except sqlite3.Error as error:
            connection.close()
            if not isinstance(error, sqlite3.OperationalError):
                raise _DamagedError(str(error)) from error
            if "locked" in str(error):
                why = f"another agent runs on {self.path.parent}; stop it, or set another store.dir"
                raise RefusedError(why) from error
            raise UnavailableError(f"{self.path}: {error}") from error
        return connection

    def _write(self) -> None:
        orders: list[Order] = []
        while True:
            with self._wake:
                if orders:  # the disk said no
                    self._wake.wait_for(lambda: self._closing, RETRY_S)
                else:
                    self._wake.wait_for(lambda: self._orders or self._closing)
                    self._wake.wait_for(lambda: self._is_urgent or self._closing, PATIENT_S_MAX)
                orders += self._orders
                self._orders.clear()
                self._is_urgent = False
                closing = self._closing
            if orders:
                orders = self._commit(orders)
            if closing and (orders or not self._orders):
                with contextlib.suppress(sqlite3.Error):
                    self._connection.close()
                return

    def _commit(self, orders: list[Order]) -> list[Order]:
        """All orders in one transaction; returns those to be tried again if the disk said no."""
        try:
            results = self._transaction([job for job, _, _ in orders])
        except sqlite3.Error as error:
            logger.warning("commit failed", path=str(self.path), why=str(error))
            for _, future, _ in orders:
                if future is not None:
                    future.set_exception(error)
            return [order for order in orders if order[1] is None]
        for (_, future, done), result in zip(orders, results, strict=True):
            if future is not None:
                future.set_result(result)
            if done is not None:
                done(result)
        for watcher in self._watchers:
            watcher()
        return []

    def _transaction(self, jobs: list[Job]) -> list[object]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            results = [job(self._connection) for job in jobs]
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        return results
