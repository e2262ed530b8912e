"""One model on one stream: rows to windows to batches to jobs to score records, in order.

All of it runs on the lane's thread and none of it waits.  Scores leave in the order the readings
came, across swaps too: what one version took in, it ends, unless it is taken away.
"""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.core.blocks import Block, Keys
from agent.core.evidence import Recent
from agent.core.scores import ScoreColumns
from agent.core.windows import Spans
from agent.ports import Answer, Record
from agent.runtime.accounts import Account
from agent.runtime.batches import Chunk, Waiting
from agent.runtime.holds import Hold
from agent.runtime.jobs import Jobs
from agent.runtime.receipts import SwapTrace
from agent.runtime.rows import score_rows
from agent.runtime.seats import Seat, Slot
from agent.runtime.shares import Share, Shares

ROWS_WAITING_MAX = 65_536  # past this the stream is not read until batches have gone out


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one scoring."""

    rows_max: int = 1024  # of a batch
    wait_s: float = 0.0  # that a batch may wait to grow
    run_s_max: float = 10.0  # a run that takes longer is a hang
    tries_max: int = 4  # of one batch; a version is condemned before that (engine.deaths_max)


@dataclass(slots=True, kw_only=True)
class Scoring:
    """The data river of one model.  `lost` is told when a worker died: the scoring, whose, and why;
    `released` when a seat is needed no more.
    """

    model: str
    stream: str
    topic: str
    epoch: int
    keys: Keys
    account: Account
    limits: Limits
    released: Callable[[Seat], None]
    lost: Callable[["Scoring", Seat, str], None]
    trace: SwapTrace | None = None
    recent: Recent = field(default_factory=Recent)
    last_reject: dict[str, str] = field(default_factory=dict)  # reason -> of the latest, why
    dirty: bool = False
    restoring: bool = False  # its version is being loaded: what comes is left with the source
    ripe: float | None = None  # when the waiting rows go out even as a small batch
    slot: Slot = field(init=False)
    jobs: Jobs = field(init=False)
    shares: Shares = field(default_factory=Shares)
    _waiting: Waiting = field(default_factory=Waiting)
    _answered: deque[tuple[Chunk, Answer]] = field(default_factory=deque)
    _halves: set[Share] = field(default_factory=set)  # bursts of which only a part is answered

    def __post_init__(self) -> None:
        self.slot = Slot(self._let_go)
        self.jobs = Jobs(
            run_s_max=self.limits.run_s_max,
            tries_max=self.limits.tries_max,
            lost=lambda seat, why: self.lost(self, seat, why),
        )

    def _let_go(self, seat: Seat) -> None:
        self.released(seat)  # as it is by then

    # ---- control, at a batch boundary ----

    def swap(self, seat: Seat | None, trace: SwapTrace | None = None) -> Seat | None:
        """From the next reading on, `seat` takes them; what is under way ends where it began."""
        old = self.slot.seat
        if seat is None or old is None:
            self.account.expired += self.account.held
            self.account.held = 0
            if seat is not None:  # back after a time away
                seat.debt = seat.windower.pending
        elif seat is not old:
            self._hand_over(old, seat)
        self.dirty = True
        self.restoring = False
        if trace is not None:
            trace.swap(self.account.next_seq)
            self.trace = trace
        return self.slot.swap(seat)

    def _hand_over(self, old: Seat, new: Seat) -> None:
        if new.like(old):  # the same windows: they go on without a seam
            new.featurizer, new.windower, new.debt = old.featurizer, old.windower, old.debt
            if new.states is not None and old.states is not None and new.states.like(old.states):
                new.states = old.states  # shared, for what is under way still writes them
            return
        carried = min(self.account.held, new.windower.pending)
        new.debt = new.windower.pending - carried
        self.account.expired += self.account.held - carried
        self.account.held = carried

    def take_from(self, bad: Seat, good: Seat | None) -> None:
        """`bad` will answer no more: what it has goes to `good`, or is rejected where that makes
        other windows.
        """
        if good is not None and good.states is not None:
            good.states.forget_broken()
        heir = good if good is not None and good is not bad and good.like(bad) else None
        leases = bad.leases
        self.jobs.give(bad, heir)
        for chunk in [c for c in self._waiting.chunks if c.seat is bad]:
            if heir is not None:
                self.slot.lease(heir)
                chunk.seat = heir
            else:
                self._waiting.remove(chunk)
                for share in chunk.shares:
                    share.reject({"rolled_back": chunk.readings})
                self._mark(chunk, parts=-1, answered=0)
                self._give_up(chunk, "rolled_back", "the version that took it was taken away")
        kept = sum(seat is bad for seat in self._leased())
        for _ in range(leases - kept):
            self.slot.release(bad)
        self.shares.settle()

    def _leased(self) -> list[Seat]:
        waiting = [chunk.seat for chunk in self._waiting.chunks]
        answered = [chunk.seat for chunk, _ in self._answered]
        return waiting + answered + [chunk.seat for chunk in self.jobs.chunks()]

    def seats(self) -> set[Seat]:
        """Every seat that something here still needs."""
        seats = set(self._leased())
        if self.slot.seat is not None:
            seats.add(self.slot.seat)
        return seats

    # ---- readings in ----

    def push(self, block: Block, hold: Hold, now: float, had: bytes = b"") -> None:
        """Take a block in.  Counts every reading of it, whatever becomes of it.

        `had`: ids of the messages of its burst that are not in it, see `Shares`.
        """
        account, seat, share = self.account, self.slot.seat, self.shares.open(hold, had)
        self.dirty = True
        share.readings = block.readings
        account.readings += block.readings
        self._reject(block.rejected, share)
        if seat is None:
            self._reject({"no_model": len(block)}, share)
            self.last_reject["no_model"] = f"no version of {self.model} was active"
        elif len(block):
            rows = seat.featurizer.featurize(block)
            self._reject(rows.rejected, share)
            if rows.rejected:
                self.last_reject |= seat.featurizer.last_reject
            spans = seat.windower.push(rows, now)
            account.held += len(rows.keys) - sum(spans.rejected.values())
            self._cut(seat, spans, block.arrived, share)
        share.parts -= 1
        self.shares.settle()

    def _reject(self, reasons: Mapping[str, int], share: Share | None) -> None:
        self.account.reject(reasons)
        if share is not None:
            share.reject(reasons)

    def due(self, now: float) -> None:
        """Close the windows that silence has closed."""
        seat = self.slot.seat
        if seat is not None and (spans := seat.windower.due(now)) is not None:
            self.dirty = True
            self._cut(seat, spans, now, None)

    def _cut(self, seat: Seat, spans: Spans, arrived: float, share: Share | None) -> None:
        account = self.account
        self._reject(spans.rejected, share)
        if spans.rejected:
            self.last_reject["late"] = "its window had closed; see `late` of the stream"
        covered = spans.readings - (paid := min(seat.debt, spans.readings))
        seat.debt -= paid  # the version before has scored those already
        expired = spans.expired - (paid := min(seat.debt, spans.expired))
        seat.debt -= paid
        account.expired += expired
        account.held -= covered + expired
        if len(spans.keys):
            account.flying += covered
            shares = [] if share is None else [share]
            for one in shares:
                one.parts += 1
            self.slot.lease(seat)
            chunk = Chunk(seat, spans.keys, spans.times, spans.values, covered, arrived, shares)
            self._waiting.add(chunk)

    # ---- batches out ----

    def pump(self, now: float) -> None:
        """Send what may be sent."""
        self.ripe = None
        if not self.jobs.resend(now):
            return
        while chunks := self._waiting.chunks:
            seat = chunks[0].seat
            if not self.jobs.may_send(seat):
                return
            if self._waiting.rows < self.limits.rows_max:
                ripe = chunks[0].arrived + self.limits.wait_s
                if now < ripe:
                    self.ripe = ripe
                    return
            chunk, leases = self._waiting.next(self.limits.rows_max)
            seat.leases += leases
            if not self.jobs.add(chunk, now):
                return

    def question(self, seat: Seat, values: NDArray[Any], now: float) -> "Future[ScoreColumns]":
        """Have `values` [n, F] scored and not counted; the future is set on the lane's thread."""
        n, asked = len(values), Future[ScoreColumns]()
        asked.set_running_or_notify_cancel()  # who gives up on it cannot take it from us
        keys, times = np.zeros(n, np.int32), np.zeros(n)
        self.slot.lease(seat)
        self.jobs.add(Chunk(seat, keys, times, values, 0, now, [], asked), now)
        return asked

    # ---- scores back ----

    def emit(self, now: float, wall: float) -> list[Record]:
        """The records whose turn has come: those of a burst all at once."""
        whole = len(self._answered) if not self._halves else 0
        for chunk, answer in self.jobs.answered():
            self._answered.append((chunk, answer))
            self._mark(chunk, parts=0, answered=1)
            if not self._halves:
                whole = len(self._answered)
        records = [
            record
            for _ in range(whole)
            if (record := self._record(*self._answered.popleft(), now, wall)) is not None
        ]
        self.shares.settle()
        return records

    def _record(self, chunk: Chunk, answer: Answer, now: float, wall: float) -> Record | None:
        record, why = score_rows(self, chunk, answer, now, wall)
        if why and chunk.orphan:
            self._give_up(chunk, "rolled_back", why)
        elif why:
            chunk.seat.evidence.errors += len(chunk)
            chunk.seat.evidence.why = why
            self._give_up(chunk, "run", why)
        self._mark(chunk, parts=-1, answered=-1)
        self.slot.release(chunk.seat)
        return record

    def _mark(self, chunk: Chunk, *, parts: int, answered: int) -> None:
        for share in chunk.shares:
            share.parts += parts
            share.answered += answered
            (self._halves.add if share.is_half else self._halves.discard)(share)

    def _give_up(self, chunk: Chunk, reason: str, why: str) -> None:
        """These readings will have no score."""
        self.dirty = True
        self.account.flying -= chunk.readings
        self.account.reject({reason: chunk.readings})
        self.last_reject[reason] = why

    def stored(self) -> bytes | None:
        """The account for the store, where it has changed since last asked."""
        changed = self.shares.forget() or self.dirty
        self.dirty = False
        return self.account.encode(self.shares) if changed else None

    # ---- what to wait for ----

    def next_due(self) -> float | None:
        """When silence will close a window (monotonic)."""
        return self.slot.seat.windower.next_due() if self.slot.seat is not None else None

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not (self._waiting.chunks or self.jobs or self._answered)

    @property
    def closed(self) -> bool:
        """Whether its stream must not be read for now."""
        return self.restoring or self._waiting.rows >= ROWS_WAITING_MAX
