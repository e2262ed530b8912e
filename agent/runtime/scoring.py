"""One model on one stream: rows to windows to batches to jobs to score records, in order.

All of it runs on the lane's thread and none of it waits.  Scores leave in the order the readings
came, across swaps too: what one version took in, it ends, unless it is taken away.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import structlog

from agent.core.blocks import Block, Keys
from agent.core.evidence import Recent
from agent.core.windows import Spans
from agent.ports import Answer, Record, WorkerLostError
from agent.runtime.accounts import Account
from agent.runtime.batches import Chunk, Job, Waiting
from agent.runtime.holds import Hold
from agent.runtime.receipts import SwapTrace
from agent.runtime.rows import score_rows
from agent.runtime.seats import Seat, Slot

logger = structlog.get_logger(__name__)

ROWS_WAITING_MAX = 65_536  # past this the stream is not read until batches have gone out


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one scoring."""

    rows_max: int = 1024  # of a batch
    wait_s: float = 0.0  # that a batch may wait to grow
    run_s_max: float = 10.0  # a run that takes longer is a hang
    tries_max: int = 3  # of one batch that its worker did not survive


@dataclass(slots=True, kw_only=True)
class Scoring:
    """The data river of one model.  `lost` is told when a worker died: the scoring, whose, and why;
    `released` when a seat is needed no more."""

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
    dirty: bool = False
    restoring: bool = False  # its version is being loaded: what comes is left with the source
    ripe: float | None = None  # when the waiting rows go out even as a small batch
    slot: Slot = field(init=False)
    _waiting: Waiting = field(default_factory=Waiting)
    _jobs: deque[Job] = field(default_factory=deque)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.slot = Slot(self.released)

    # ---- control, at a batch boundary ----

    def swap(self, seat: Seat | None, trace: SwapTrace | None = None) -> Seat | None:
        """From the next reading on, `seat` takes them; what is under way ends where it began."""
        old = self.slot.seat
        if seat is None or old is None:
            self.account.expired += self.account.held
            self.account.held = 0
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
            if new.states is not None and old.states is not None:
                new.states.adopt(old.states)
            return
        carried = min(self.account.held, new.windower.pending)
        new.debt = new.windower.pending - carried
        self.account.expired += self.account.held - carried
        self.account.held = carried

    def take_from(self, bad: Seat, good: Seat | None) -> None:
        """`bad` will answer no more: what it has goes to `good`, or is rejected where that makes
        other windows."""
        fits = good is not None and good is not bad and good.like(bad)
        chunks = [c for c in self._waiting.chunks if c.seat is bad]
        jobs = [j for j in self._jobs if j.chunk.seat is bad and j.answer is None]
        bad.jobs_out = 0
        for job in jobs:
            job.sent, job.tries = 0.0, 0
            if not fits:
                job.answer = Answer(job.number, (), 0.0, "its version was taken away")
        for chunk in [*chunks, *(job.chunk for job in jobs)]:
            if fits and good is not None:
                self.slot.lease(good)
                chunk.seat = good
                self.slot.release(bad)
            elif chunk in chunks:
                self._waiting.remove(chunk)
                self._give_up(chunk, "rolled_back")
                self.slot.release(bad)

    def seats(self) -> set[Seat]:
        """Every seat that something here still needs."""
        seats = {job.chunk.seat for job in self._jobs} | {c.seat for c in self._waiting.chunks}
        if self.slot.seat is not None:
            seats.add(self.slot.seat)
        return seats

    # ---- readings in ----

    def push(self, block: Block, hold: Hold, wall: float) -> None:
        """Take a block in.  Counts every reading of it, whatever becomes of it."""
        account, seat = self.account, self.slot.seat
        self.dirty = True
        account.readings += block.readings
        account.reject(block.rejected)
        if seat is None:
            account.reject({"no_model": len(block)})
        elif len(block):
            rows = seat.featurizer.featurize(block)
            account.reject(rows.rejected)
            spans = seat.windower.push(rows, wall)
            account.held += len(rows.keys) - sum(spans.rejected.values())
            self._cut(seat, spans, block.arrived, [hold])

    def due(self, now: float, wall: float) -> None:
        """Close the windows that silence has closed."""
        seat = self.slot.seat
        if seat is not None and (spans := seat.windower.due(wall)) is not None:
            self.dirty = True
            self._cut(seat, spans, now, [])

    def _cut(self, seat: Seat, spans: Spans, arrived: float, holds: list[Hold]) -> None:
        account = self.account
        account.reject(spans.rejected)
        covered = spans.readings - (paid := min(seat.debt, spans.readings))
        seat.debt -= paid  # the version before has scored those already
        expired = spans.expired - (paid := min(seat.debt, spans.expired))
        seat.debt -= paid
        account.expired += expired
        account.held -= covered + expired
        if len(spans.keys):
            account.flying += covered
            for hold in holds:
                hold.parts += 1
            self.slot.lease(seat)
            chunk = Chunk(seat, spans.keys, spans.times, spans.values, covered, arrived, holds)
            self._waiting.add(chunk)

    # ---- batches out ----

    def pump(self, now: float) -> None:
        """Send what may be sent."""
        self.ripe = None
        for job in self._jobs:  # what a lost worker left behind goes first
            if not job.sent and job.answer is None and not self._send(job, now):
                return
        while chunks := self._waiting.chunks:
            seat = chunks[0].seat
            if not self._may_send(seat):
                return
            if self._waiting.rows < self.limits.rows_max:
                ripe = chunks[0].arrived + self.limits.wait_s
                if now < ripe:
                    self.ripe = ripe
                    return
            chunk, leases = self._waiting.next(self.limits.rows_max)
            seat.leases += leases
            job = Job(next(self._numbers), chunk)
            self._jobs.append(job)
            if not self._send(job, now):
                return

    def _may_send(self, seat: Seat) -> bool:
        return not seat.lost and seat.jobs_out < seat.jobs_max

    def _send(self, job: Job, now: float) -> bool:
        seat = job.chunk.seat
        if not self._may_send(seat):
            return False
        states = seat.states.gather(job.chunk.keys) if seat.states is not None else None
        inputs = seat.assembler.assemble(job.chunk.values, states)
        try:
            seat.session.submit(job.number, inputs)
        except WorkerLostError as error:
            self.worker_lost(seat, str(error))
            return False
        job.sent = now
        job.tries += 1
        seat.jobs_out += 1
        return True

    # ---- scores back ----

    def collect(self, seat: Seat) -> None:
        """Take what the session of `seat` has answered."""
        try:
            answers = seat.session.collect()
        except WorkerLostError as error:
            self.worker_lost(seat, str(error))
            return
        for answer in answers:
            for job in self._jobs:
                if job.number == answer.job and job.out and job.chunk.seat is seat:
                    job.answer = answer
                    seat.jobs_out -= 1
                    if seat.states is not None and not answer.error:
                        seat.states.scatter(job.chunk.keys, seat.named(answer.outputs))
                    break

    def emit(self, now: float, wall: float) -> list[Record]:
        """The records whose turn has come."""
        records = []
        while self._jobs and (answer := self._jobs[0].answer) is not None:
            job = self._jobs.popleft()
            record, why = score_rows(self, job.chunk, answer, now, wall)
            if record is not None:
                records.append(record)
            else:
                job.chunk.seat.evidence.errors += len(job.chunk)
                job.chunk.seat.evidence.why = why
                self._give_up(job.chunk, "run")
            for hold in job.chunk.holds if record is not None else ():
                hold.parts -= 1
            self.slot.release(job.chunk.seat)
        return records

    def _give_up(self, chunk: Chunk, reason: str) -> None:
        """These readings will have no score."""
        self.dirty = True
        self.account.flying -= chunk.readings
        self.account.reject({reason: chunk.readings})
        for hold in chunk.holds:
            hold.parts -= 1

    # ---- trouble ----

    def hung(self, now: float) -> None:
        """Kill a worker whose run takes longer than any run may."""
        due = self.next_hang()
        if due is not None and now >= due:
            seat = next(job.chunk.seat for job in self._jobs if job.out)
            logger.warning("a run hangs", model=str(seat.ref), after_s=self.limits.run_s_max)
            seat.session.kill()

    def next_hang(self) -> float | None:
        """When the oldest run will have taken too long (monotonic)."""
        for job in self._jobs:
            if job.out:
                return job.sent + self.limits.run_s_max
        return None

    def next_due(self) -> float | None:
        """When silence will close a window (wall)."""
        return self.slot.seat.windower.next_due() if self.slot.seat is not None else None

    def worker_lost(self, seat: Seat, why: str) -> None:
        """Its jobs will be sent again, unless one of them keeps killing workers."""
        if seat.lost:
            return
        seat.lost = True
        seat.jobs_out = 0
        seat.evidence.deaths += 1
        for job in self._jobs:
            if job.chunk.seat is seat and job.out:
                job.sent = 0.0
                if job.tries >= self.limits.tries_max:
                    why_not = f"{why}; {job.tries} workers did not survive this batch"
                    job.answer = Answer(job.number, (), 0.0, why_not)
                break  # only the oldest was running
        for job in self._jobs:
            if job.chunk.seat is seat and job.out:
                job.sent, job.tries = 0.0, job.tries - 1
        self.lost(self, seat, why)

    def revived(self, seat: Seat) -> None:
        """A new worker holds the version of `seat`: go on."""
        seat.lost = False

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._waiting.chunks and not self._jobs

    @property
    def closed(self) -> bool:
        """Whether its stream must not be read for now."""
        return self.restoring or self._waiting.rows >= ROWS_WAITING_MAX
