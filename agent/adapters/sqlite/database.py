"""The one connection to the file and its one writer thread (how it is opened: `opening`).

Everyone hands the thread functions of the connection; it runs them in batches, one transaction a
batch.  It decides nothing about what is in the tables: on a full disk it gives back its ballast and
has whoever keeps much (`relief`) give some of it up.  Other weather is tried again; damage ends the
thread, and with it the process (who is to blame: `blame`).
"""

import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import structlog

from agent.adapters.sqlite import blame, doubts, opening
from agent.adapters.sqlite.ballast import Ballast
from agent.core.errors import UnavailableError
from agent.ports import Trouble

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], Any]

logger = structlog.get_logger(__name__)

RETRY_S = 0.5  # between tries while the disk says no
PATIENT_S_MAX = 0.05  # that an order without hurry waits for a commit to ride with
TROUBLE_S = 5.0  # that is told of after an error: the next try may be so far away
UNREAD_S_MAX = 30.0  # that a disk may not give what it holds, before it is taken for damaged


class _Order(NamedTuple):
    job: Job
    future: Future[Any] | None = None
    done: Callable[[Any], None] | None = None
    spare: Job | None = None


class Database:
    """One SQLite file, opened once; `close` commits what was asked for before it.

    `gather_s`: while there is always something to commit, a commit begins at least so long after
    the one before it, so that it takes more along.  After a pause it begins at once, and so it does
    where somebody waits for a future.

    `check`: raises ValueError where what a file holds makes no sense; it is damaged then, too.

    `found`: how it was found, for people; empty if it was as it was left.
    """

    def __init__(
        self,
        path: Path,
        *,
        gather_s: float = 0.0,
        check: Callable[[sqlite3.Connection], None] = lambda _: None,
        unread_s_max: float = UNREAD_S_MAX,
        believed_s: float = doubts.BELIEVED_S,
    ) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"cannot make the store {path.parent}: {error.strerror}; see store.dir"
            raise UnavailableError(why) from error
        self.path = path
        self._gather_s = gather_s
        self._ballast = Ballast(path.with_name("ballast"))
        self._relief: list[_Order] = []
        self._orders: deque[_Order] = deque()
        self._wake = threading.Condition()
        self._is_urgent = False  # some order does not want to wait for others
        self._closing = False
        self._watchers: list[Callable[[], None]] = []
        self._trouble = Trouble()
        self._troubled_until = float("-inf")
        self._patience = blame.Patience(unread_s_max, TROUBLE_S)
        self._believed_at = time.monotonic() + believed_s
        self._connection, self.found = opening.opened(path, check)
        self._thread = threading.Thread(target=self._write, name="sqlite", daemon=True)
        self._thread.start()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` in the writer thread after each commit; it must not raise or wait."""
        self._watchers.append(watcher)

    def relieve(self, job: Callable[[sqlite3.Connection], T], done: Callable[[T], None]) -> None:
        """On a full disk have `job` done, then `done`: it deletes what can be spared."""
        self._relief.append(_Order(job, None, done))

    @property
    def has_ballast(self) -> bool:
        """Whether there is room to spare on the disk."""
        return self._ballast.held

    def trouble(self) -> Trouble:
        """What the disk has said no to."""
        is_over = time.monotonic() > self._troubled_until
        return self._trouble._replace(why="") if is_over else self._trouble

    def submit(
        self,
        job: Callable[[sqlite3.Connection], T],
        done: Callable[[T], None],
        *,
        urgent: bool = True,
        spare: Callable[[sqlite3.Connection], T] | None = None,
    ) -> None:
        """Have `job` done in the next commit, then `done` with its result in the writer thread.

        What is not `urgent` rides with the next commit that is, or makes one of its own a little
        later: a sync costs the same for one order as for many.  A disk that says no is tried again
        until it says yes: nothing submitted is lost or reordered while the process lives.  What no
        disk is to blame for ends the process.  `spare` is what to do instead if the disk is full
        and nothing could make room for `job`.
        """
        self._put(_Order(job, None, done, spare), urgent=urgent)

    def future(self, job: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        """As `submit`; the future is done when the commit that holds `job` is durable."""
        future: Future[T] = Future()
        self._put(_Order(job, future), urgent=True)
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

    def _put(self, order: _Order, *, urgent: bool) -> None:
        with self._wake:
            if self._closing and threading.current_thread() is not self._thread:
                msg = f"{self.path} is closed"
                raise UnavailableError(msg)
            self._orders.append(order)
            self._is_urgent |= urgent
            if urgent or len(self._orders) == 1:
                self._wake.notify()

    def _write(self) -> None:
        orders: list[_Order] = []
        due = 0.0  # when the next commit may begin
        while True:
            with self._wake:
                if orders:  # the disk said no
                    self._wake.wait_for(lambda: self._closing, RETRY_S)
                else:
                    self._wake.wait_for(lambda: self._orders or self._closing)
                    self._wake.wait_for(lambda: self._is_urgent or self._closing, PATIENT_S_MAX)
                is_patient = all(order.future is None for order in self._orders)
            if is_patient and not self._closing and (early_s := due - time.monotonic()) > 0:
                time.sleep(early_s)  # not for the condition: to be woken by each order costs more
            with self._wake:
                orders += self._orders
                self._orders.clear()
                self._is_urgent = False
                closing = self._closing
            if orders:
                orders = self._commit(orders)
                due = time.monotonic() + self._gather_s
            if closing and (orders or not self._orders):
                with contextlib.suppress(sqlite3.Error):
                    self._connection.close()
                return

    def _commit(self, orders: list[_Order]) -> list[_Order]:
        """All orders in one transaction; returns those to be tried again if the disk said no."""
        error = self._tried(orders)
        if error is not None and blame.is_full(error):
            self._make_room(error, orders)
            error = self._tried(orders)
        if error is not None:
            return self._squeeze(orders)
        self._ballast.take()
        self._believe()
        return []

    def _believe(self) -> None:
        if time.monotonic() > self._believed_at:
            self._believed_at = float("inf")
            doubts.forget(self.path)

    def _make_room(self, error: sqlite3.Error, orders: list[_Order]) -> None:
        if self._ballast.held:
            logger.warning("disk full, making room", path=str(self.path), why=str(error))
        self._ballast.release()
        # First what the WAL holds goes where it belongs: that takes as much room as the WAL, which
        # is less than the ballast.  Then the WAL is empty, and what relief frees can be used again.
        self._checkpoint()
        if (found := self._tried(self._relief)) is not None:
            self._judge(found, orders, is_ours=True)
        self._checkpoint()

    def _checkpoint(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _squeeze(self, orders: list[_Order]) -> list[_Order]:
        """One order at a time, so that none takes along another; behind one that waits all wait.

        Who waits for a future is told, and asks again if he likes: nobody waits behind him.
        """
        for n, order in enumerate(orders):
            error = self._tried([order])
            if error is not None and order.spare is not None and blame.is_full(error):
                error = self._tried([order._replace(job=order.spare)])
            if error is None:
                continue
            self._judge(error, orders[n:], is_ours=order.future is None)
            if order.future is None:
                return self._not_done(orders[n:], error)
            order.future.set_exception(error)
        return []

    def _judge(self, error: sqlite3.Error, orders: list[_Order], *, is_ours: bool) -> None:
        """Raises `error` where trying again is no use: the thread ends, and with it the process.

        `is_ours`: nobody else would hear of it.
        """
        now = time.monotonic()
        if is_damage := self._patience.is_over(error, now):
            logger.critical("database damaged, ending", path=str(self.path), why=str(error))
            doubts.note(self.path, f"found to be damaged while running: {error}")
        if blame.is_weather(error):
            why = f"the disk says no to {self.path}: {error}"
            self._trouble = Trouble(self._trouble.errors + 1, why)
            self._troubled_until = now + TROUBLE_S
        elif not is_ours and not is_damage:
            return
        if is_damage or not blame.is_weather(error):
            with self._wake:
                self._closing = True  # nobody is to wait for what nobody does
                orders = [*orders, *self._orders]
            for order in orders:
                if order.future is not None:
                    order.future.set_exception(error)
            self._connection.close()
            raise error

    def _tried(self, orders: list[_Order]) -> sqlite3.Error | None:
        try:
            results = self._transaction([order.job for order in orders])
        except sqlite3.Error as error:
            return error
        for order, result in zip(orders, results, strict=True):
            if order.future is not None:
                order.future.set_result(result)
            if order.done is not None:
                order.done(result)
        for watcher in self._watchers:
            watcher()
        return None

    def _not_done(self, orders: list[_Order], error: sqlite3.Error) -> list[_Order]:
        logger.warning("commit failed", path=str(self.path), why=str(error))
        for order in orders:
            if order.future is not None:
                order.future.set_exception(error)
        return [order for order in orders if order.future is None]

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
