"""One model on one stream: rows to windows to batches to jobs to score records, in order.

All of it runs on the lane's thread and none of it waits.  Scores leave in the order the readings
came, across swaps too: what one version took in, it ends, unless it is taken away.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.core.blocks import Block, Keys
from agent.core.latency import Recent
from agent.ports import Answer, Carried, Record
from agent.runtime import handover
from agent.runtime.accounts import Account
from agent.runtime.batches import Chunk, Waiting
from agent.runtime.beside import Beside
from agent.runtime.carrying import Carrying
from agent.runtime.cutting import cut
from agent.runtime.holds import Hold
from agent.runtime.jobs import Jobs
from agent.runtime.limits import Limits
from agent.runtime.overload import Overload
from agent.runtime.receipts import SwapTrace
from agent.runtime.rows import score_rows
from agent.runtime.seats import Seat, Slot
from agent.runtime.shares import Share, Shares


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
    beside: Beside = field(init=False)
    carrying: Carrying = field(init=False)
    overload: Overload = field(init=False)
    waiting: Waiting = field(default_factory=Waiting)
    _answered: deque[tuple[Chunk, Answer]] = field(default_factory=deque)
    _halves: set[Share] = field(default_factory=set)  # bursts of which only a part is answered

    def __post_init__(self) -> None:
        self.slot = Slot(self._let_go)
        self.jobs = Jobs(
            run_s_max=self.limits.run_s_max,
            tries_max=self.limits.tries_max,
            lost=self._worker_lost,
        )
        self.beside = Beside(self)
        self.carrying = Carrying(self.keys)
        self.overload = Overload(self.limits)

    def _worker_lost(self, seat: Seat, why: str) -> None:
        self.beside.worker_lost(seat)
        self.lost(self, seat, why)

    def _let_go(self, seat: Seat) -> None:
        self.released(seat)  # as it is by then

    # ---- control, at a batch boundary ----

    def swap(self, seat: Seat | None, trace: SwapTrace | None = None) -> Seat | None:
        """From the next reading on, `seat` takes them; what is under way ends where it began."""
        old = self.slot.seat
        if seat is None or old is None:
            handover.begin(self, seat)
        elif seat is not old:
            handover.hand_over(self, old, seat)
        self.carrying.begin(seat, self._opened, self.account.held)
        self.beside.swap(old, seat)
        self.dirty, self.restoring = True, False
        if trace is not None:
            trace.swap(self.account.next_seq)
            trace.counts = self.account.counts()
            self.trace = trace
        return self.slot.swap(seat)

    def _opened(self) -> Share:
        """For what no burst has brought: it is settled in its turn."""
        share = self.shares.open(None)
        self._close(share)
        return share

    def _close(self, share: Share) -> None:
        share.parts -= 1
        self.shares.settle()

    def take_from(self, bad: Seat, good: Seat | None) -> None:
        """`bad` will answer no more: `good` answers what it had not yet answered."""
        handover.take_from(self, bad, good)

    def leased(self) -> list[Seat]:
        """The seat of every chunk that is on its way."""
        return [chunk.seat for chunk in self.on_its_way()]

    def on_its_way(self) -> list[Chunk]:
        """Every chunk that has no score yet, or whose turn has not come."""
        answered = [chunk for chunk, _ in self._answered]
        return [*self.waiting.chunks, *answered, *self.jobs.chunks()]

    def seats(self) -> set[Seat]:
        """Every seat that something here still needs."""
        seats = set(self.leased())
        if self.slot.seat is not None:
            seats.add(self.slot.seat)
        return seats | self.beside.seats()

    # ---- readings in ----

    def push(self, block: Block, hold: Hold, now: float, had: bytes = b"") -> None:
        """Take a block in.  Counts every reading of it, whatever becomes of it.

        `had`: ids of the messages of its burst that are not in it, see `Shares`.
        """
        account, seat, share = self.account, self.slot.seat, self.shares.open(hold, had)
        self.dirty = True
        block = self.overload.thinned(block, self.waiting.rows)
        share.readings = block.readings
        account.readings += block.readings
        self.reject(block.rejected, share)
        if seat is None:
            self.reject({"no_model": len(block)}, share)
            self.last_reject["no_model"] = f"no version of {self.model} was active"
        elif len(block):
            rows = seat.featurizer.featurize(block)
            self.reject(rows.rejected, share)
            if rows.rejected:
                self.last_reject |= seat.featurizer.last_reject
            spans = seat.windower.push(rows, now)
            account.held += len(rows.keys) - sum(spans.rejected.values())
            cut(self, seat, spans, block.arrived, share)
            self.carrying.pushed(seat, block, now, share, account.held)
            self.beside.feed(block, now)
        self._close(share)
        self.overload.relieve(self)

    def reject(self, reasons: Mapping[str, int], share: Share) -> None:
        """These readings of `share` will have no score."""
        self.account.reject(reasons)
        share.reject(reasons)

    def due(self, now: float) -> None:
        """Close the windows that silence has closed."""
        seat = self.slot.seat
        due = None if seat is None else seat.windower.next_due()
        if seat is not None and due is not None and due <= now:
            share = self.shares.open(None)
            if (spans := seat.windower.due(now)) is not None:
                self.dirty = True
                cut(self, seat, spans, now, share)
            self.carrying.waited(now, share, self.account.held)
            self._close(share)
        self.beside.due(now)

    # ---- batches out ----

    def pump(self, now: float, *, is_grown: bool = False) -> None:
        """Send what may be sent: first to the active version, then to its shadow.  `is_grown`: even
        a small batch has waited long enough, before it was read.
        """
        self._pump(now, is_grown=is_grown)
        self.beside.pump(now)

    def _pump(self, now: float, *, is_grown: bool) -> None:
        self.ripe = None
        if not self.jobs.resend(now):
            return
        while chunks := self.waiting.chunks:
            seat = chunks[0].seat
            if not self.jobs.may_send(seat):
                return
            if not is_grown and self.waiting.rows < self.limits.rows_max:
                ripe = chunks[0].arrived + self.limits.wait_s
                if now < ripe:
                    self.ripe = ripe
                    return
            chunk, leases = self.waiting.next(self.limits.rows_max)
            seat.leases += leases
            if not self.jobs.add(chunk, now):
                return

    def put(self, chunk: Chunk, now: float) -> None:
        """Have `chunk` scored out of turn: a question, or what has to be scored again."""
        self.slot.lease(chunk.seat)
        self.jobs.add(chunk, now)

    # ---- scores back ----

    def collect(self, seat: Seat, now: float) -> None:
        """Take what the session of `seat` has answered."""
        self.beside.collect(seat, self.jobs.collect(seat), now)

    def hung(self, now: float) -> None:
        """Kill a worker whose run takes longer than it may."""
        self.jobs.hung(now)
        self.beside.hung(now)

    def stood_still(self, gap_s: float) -> None:
        """The whole process was stopped for `gap_s`: that is nobody's hang."""
        self.jobs.stood_still(gap_s)
        self.beside.stood_still(gap_s)

    def emit(self, now: float, wall: float) -> list[Record]:
        """The records whose turn has come: those of a burst all at once."""
        whole = len(self._answered) if not self._halves else 0
        for chunk, answer in self.jobs.answered():
            self._answered.append((chunk, answer))
            self.mark(chunk, parts=0, answered=1)
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
            self.give_up(chunk, "rolled_back", why)
        elif why:
            chunk.seat.evidence.errors += len(chunk)
            chunk.seat.evidence.why = why
            self.give_up(chunk, "run", why)
        self.mark(chunk, parts=-1, answered=-1)
        self.slot.release(chunk.seat)
        return record

    def mark(self, chunk: Chunk, *, parts: int, answered: int) -> None:
        """What has become of a chunk, for the bursts it is of."""
        for share in chunk.shares:
            share.parts += parts
            share.answered += answered
            (self._halves.add if share.is_half else self._halves.discard)(share)

    def give_up(self, chunk: Chunk, reason: str, why: str) -> None:
        """These readings will have no score."""
        self.dirty = True
        self.account.flying -= chunk.readings
        self.account.reject({reason: chunk.readings})
        self.last_reject[reason] = why

    def carried(self) -> Carried | None:
        """What has come to windows and states, for the store; to be asked before `stored`."""
        taken = self.carrying.take(quiet=not (self._halves or self._answered))
        self.dirty |= taken is not None
        return taken

    def stored(self) -> bytes | None:
        """The account for the store, where it has changed since last asked."""
        changed, self.dirty = self.shares.forget() or self.dirty, False
        return self.account.encode(self.shares, self.carrying.kept) if changed else None

    # ---- what to wait for ----

    def next_due(self, now: float) -> float | None:
        """When there will be something to do (monotonic), if nothing else happens."""
        times = [self.jobs.next_hang(), self.ripe, *self.beside.dues(now)]
        if self.slot.seat is not None:
            times.append(self.slot.seat.windower.next_due())
        return min((time for time in times if time is not None), default=None)

    def waits_s(self, now: float) -> float:
        """How long the oldest of what is on its way has been waiting for a score."""
        oldest = min((chunk.arrived for chunk in self.on_its_way()), default=now)
        return now - oldest

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not (self.waiting.chunks or self.jobs)  # who is answered waits for one of these

    @property
    def closed(self) -> bool:
        """Whether its stream must not be read for now."""
        return self.restoring or self.overload.closes(self.waiting.rows)
