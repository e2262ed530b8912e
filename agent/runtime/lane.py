"""The lane: one thread that reads, scores and writes, with a selector and no queue between.

Sockets, worker answers, commits and requests from other threads all wake the same loop; each turn
does what there is to do and ends in at most one outbox entry.  Batches grow by themselves: what
arrives while a run is under way is the next batch.  Nothing here waits for anything but the
selector, and while readings keep coming for a few milliseconds between turns (docs/adr/0013).
"""

import contextlib
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import structlog

from agent.ports import Clock, Entry, Outbox, Record, Source
from agent.runtime.descriptors import Descriptors, Ready
from agent.runtime.holds import Hold
from agent.runtime.intake import Intake
from agent.runtime.scoring import Scoring

T = TypeVar("T")
logger = structlog.get_logger(__name__)

READINGS_A_TURN_MAX = 4096  # from one source, before the others have their turn
TURN_S_MAX = 1.0  # the longest sleep: a lost wake-up costs no more than this
STILL_S = 1.5  # more than TURN_S_MAX between two turns: the machine, or we, stood still
BUSY_S = 0.002  # after the rest that follows a turn with readings: they keep coming
CYCLE_S = 0.007  # from one turn's begin to the next one's, while they do
WAIT_S_MAX = 0.010  # of a stream's wait_ms, that is waited for before reading
UNCOMMITTED_MAX = 256  # entries on their way to disk before reading stops


class LaneStoppedError(RuntimeError):
    """The lane's thread has ended: a bug, which the watchman ends the agent for."""


class Lane:
    """Owns intakes, scorings and their seats while it runs; others reach them through `call`."""

    def __init__(self, clock: Clock, outbox: Outbox) -> None:
        self.intakes: dict[str, Intake] = {}
        self.beat = clock.monotonic()  # of the last turn: who reads it sees whether we live
        self.reads = True  # False: what comes is left with its source
        self._clock = clock
        self._outbox = outbox
        self.sources: dict[Source, Sequence[str]] = {}  # and the streams each feeds
        self._requests: deque[Callable[[], None]] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._descriptors = Descriptors(self._wake_reader.fileno())
        self._ticks: dict[Source, float] = {}
        self._waiting: deque[tuple[int, list[Hold]]] = deque()  # ticket -> holds it settles
        self._owed = 0  # how many of these hold something to acknowledge
        self._read_at = float("-inf")  # the end of the latest turn with readings
        self._rest_until = 0.0
        self._rested_s = 0.0  # before this turn
        self._uncommitted = False  # the latest turn left something for the next answers
        self._stopping = False
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="lane", daemon=True)

    # ---- for other threads ----

    def start(self) -> None:
        """Begin; intakes and sources have been added."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Read no more, let what is in flight end, within `timeout_s`; False if it did not.

        Idempotent.
        """
        if not self._thread.is_alive():
            return True
        with contextlib.suppress(RuntimeError, TimeoutError):
            self.call(self._close_sources).result(timeout_s)
        self._stopping = True
        self._wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def call(self, function: Callable[[], T]) -> "Future[T]":
        """Run `function` on the lane's thread, between two turns; not if it was cancelled first."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001  # belongs to the caller, not to the lane
                future.set_exception(error)

        if self._failed is not None:
            msg = "the lane has stopped"
            raise LaneStoppedError(msg) from self._failed
        self._requests.append(run)
        self._wake()
        return future

    @property
    def failed(self) -> BaseException | None:
        """What ended the thread, if something did: a bug, and the agent must not go on."""
        return self._failed

    # ---- on the lane's thread, or before it starts ----

    def add_source(self, source: Source, streams: Sequence[str]) -> None:
        """Read `source`, which feeds `streams`, from now on."""
        self.sources[source] = streams
        self._ticks[source] = self._clock.monotonic()

    def read(self) -> None:
        """Read every source from now on."""
        self.reads = True

    def scorings(self) -> Iterable[Scoring]:
        """Every model on every stream."""
        for intake in self.intakes.values():
            yield from intake.scorings.values()

    # ---- the loop ----

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_writer.send(b"\0")

    def _run(self) -> None:
        try:
            while not (self._stopping and self._drained()):
                self._turn()
        except BaseException as error:  # a bug ends the agent, not just this thread
            self._failed = error
            logger.exception("the lane has failed")
        finally:
            self._descriptors.close()
            self._wake_reader.close()

    def _drained(self) -> bool:
        return not self._waiting and all(s.idle for s in self.scorings())

    def _rest(self) -> None:
        """Let a little gather, under load: a turn costs the same for one reading as for many, and
        what it gives would wait for the next commit.  Answers are taken as they come, and whoever
        calls ends it.
        """
        began = self._clock.monotonic()
        self._rested_s = 0.0
        while (rest_s := self._rest_until - self._clock.monotonic()) > 0.0 and not self._stopping:
            self._rested_s = self._rest_until - began
            ready = self._descriptors.ready_at_rest(rest_s)
            if not ready or id(None) in ready:
                break
            self._take_answers(ready)
        if self._uncommitted:
            self._commit([])

    def _take_answers(self, ready: Ready) -> None:
        self._look()
        self._commit(self._score(ready, self.beat, self._clock.wall()))

    def _look(self) -> None:
        """At the clock, after a wait: if we all stood still, that was no run's time."""
        before, self.beat = self.beat, self._clock.monotonic()
        if (gap_s := self.beat - before) > STILL_S:
            for scoring in self.scorings():
                scoring.stood_still(gap_s)

    def _turn(self) -> None:
        self._rest()
        self._watch()
        now = self._clock.monotonic()
        ready = self._descriptors.ready(max(0.0, min(self._next_due(now) - now, TURN_S_MAX)))
        self._look()
        now, wall = self.beat, self._clock.wall()
        if id(None) in ready:
            with contextlib.suppress(BlockingIOError):
                while self._wake_reader.recv(4096):
                    pass
        while self._requests:
            self._requests.popleft()()
        self._settle()
        came = self._read(ready, now, wall)
        is_busy = came and now - max(self._read_at, self._rest_until) < BUSY_S
        now = self._clock.monotonic()  # not before what was just read arrived
        records = self._score(ready, now, wall)
        if came:
            self._read_at = self._clock.monotonic()
            self._rest_until = self.beat + self._cycle_s() if is_busy else 0.0
        self._uncommitted = is_busy and not records
        if not self._uncommitted:
            self._commit(records)
            self._settle()

    def _read(self, ready: Ready, now: float, wall: float) -> bool:
        came = False
        for source in self.sources:
            if now >= self._ticks[source]:
                self._ticks[source] = source.tick(now)
            if id(source) in ready and not self._closed(source):
                for burst in source.read(READINGS_A_TURN_MAX):
                    came = True
                    self.intakes[burst.stream].take(source, burst, now, wall)
                self._ticks[source] = min(self._ticks[source], source.tick(now))
        return came

    def _score(self, ready: Ready, now: float, wall: float) -> list[Record]:
        records: list[Record] = []
        for scoring in self.scorings():
            for seat in scoring.seats():
                if id(seat) in ready and not seat.lost:
                    scoring.collect(seat, now)
            records += scoring.emit(now, wall)
            scoring.due(now)
            scoring.hung(now)
            scoring.pump(now, is_grown=self._rested_s >= scoring.limits.wait_s)
        return records

    def _cycle_s(self) -> float:
        """From turn to turn, under load: one that takes longer is followed by the next at once."""
        waits = (intake.wait_s for intake in self.intakes.values())
        return CYCLE_S + min(min(waits, default=0.0), WAIT_S_MAX)

    def _commit(self, records: list[Record]) -> None:
        self._uncommitted = False
        holds: list[Hold] = []
        marks: dict[str, bytes] = {}
        for name, intake in self.intakes.items():
            settled = intake.holds.settled()
            holds += settled
            new = [hold.burst.mark for hold in settled if hold.burst.mark is not None]
            if new:
                marks[name] = new[-1]
        accounts, carried = {}, {}
        for scoring in self.scorings():
            if (row := scoring.carried()) is not None:
                carried[scoring.stream, scoring.model] = row
            if (raw := scoring.stored()) is not None:
                accounts[scoring.stream, scoring.model] = raw
        if records or accounts or marks or holds:
            ticket = self._outbox.add(Entry(records, accounts, marks, carried))
            holds = [hold for hold in holds if hold.burst.token is not None]
            self._waiting.append((ticket, holds))
            self._owed += bool(holds)

    def _settle(self) -> None:
        """Acknowledge what has become durable."""
        durable = self._outbox.committed()
        accepted: dict[Source, list[object]] = {}
        while self._waiting and self._waiting[0][0] <= durable:
            _, holds = self._waiting.popleft()
            self._owed -= bool(holds)
            for hold in holds:
                accepted.setdefault(hold.source, []).append(hold.burst.token)
        for source, tokens in accepted.items():
            source.accept(tokens)

    # ---- what to wait for ----

    def _closed(self, source: Source) -> bool:
        if not self.reads or len(self._waiting) > UNCOMMITTED_MAX:
            return True
        return any(self.intakes[name].closed for name in self.sources[source])

    def _watch(self) -> None:
        read = selectors.EVENT_READ
        wanted: dict[int, tuple[object, int, bool]] = {}
        if self._owed or self._stopping or len(self._waiting) > UNCOMMITTED_MAX:
            wanted[self._outbox.fileno()] = (self._outbox, read, False)
        for source in self.sources:
            if (descriptor := source.fileno()) is not None:
                mask = 0 if self._closed(source) else read
                if source.wants_write():
                    mask |= selectors.EVENT_WRITE
                if mask:
                    wanted[descriptor] = (source, mask, False)
        for scoring in self.scorings():
            for seat in scoring.seats():
                if not seat.lost:
                    wanted[seat.session.fileno()] = (seat, read, True)
        self._descriptors.watch(wanted)

    def _next_due(self, now: float) -> float:
        dues = [*self._ticks.values()]
        each = (scoring.next_due(now) for scoring in self.scorings())
        dues += [due for due in each if due is not None]
        return min(dues, default=now + TURN_S_MAX)

    def _close_sources(self) -> None:
        for source in self.sources:
            self._ticks.pop(source)
            source.close()
        self.sources.clear()
