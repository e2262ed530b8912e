"""Batches on their way through sessions, in the order their readings came.

A job keeps its rows until it is answered: a lost worker's jobs are sent again to the next one, and
a version that is taken away hands them to the one that takes over.  Lane's thread only.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from agent.core.errors import UnfitError
from agent.ports import Answer, WorkerLostError
from agent.runtime.batches import Chunk
from agent.runtime.seats import Seat

logger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Job:
    """One batch.  `sent` is monotonic, 0 while no worker has it."""

    number: int
    chunk: Chunk
    sent: float = 0.0
    tries: int = 0
    answer: Answer | None = None

    @property
    def out(self) -> bool:
        """Whether a worker has it."""
        return self.sent > 0.0 and self.answer is None


class Jobs:
    """The jobs of one scoring.  `lost` is told whose worker is gone, and why."""

    def __init__(
        self, *, run_s_max: float, tries_max: int, lost: Callable[[Seat, str], None]
    ) -> None:
        self._jobs: deque[Job] = deque()
        self._numbers: Iterator[int] = itertools.count(1)
        self._run_s_max = run_s_max
        self._tries_max = tries_max
        self._lost = lost

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def chunks(self) -> Iterator[Chunk]:
        """What all of them are made of."""
        return (job.chunk for job in self._jobs)

    def may_send(self, seat: Seat) -> bool:
        """Whether the session of `seat` takes one more.

        Versions may share states, and each run needs what the one before it left.
        """
        if seat.lost or seat.parked or seat.jobs_out >= seat.jobs_max:
            return False
        states = seat.states
        return states is None or not any(
            job.out and job.chunk.seat.states is states for job in self._jobs
        )

    def add(self, chunk: Chunk, now: float) -> bool:
        """Send a new batch; False if it has to wait for its worker."""
        job = Job(next(self._numbers), chunk)
        self._jobs.append(job)
        return self._send(job, now)

    def resend(self, now: float) -> bool:
        """Send what a lost worker left behind; False if some of it has to wait."""
        return all(
            self._send(job, now) for job in self._jobs if not job.sent and job.answer is None
        )

    def _send(self, job: Job, now: float) -> bool:
        seat = job.chunk.seat
        if not self.may_send(seat):
            return False
        known = job.chunk.states or seat.states
        states = known.gather(job.chunk.keys) if known is not None else None
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

    def collect(self, seat: Seat) -> list[Answer]:
        """Take what the session of `seat` has answered; what was not asked here is given back."""
        others: list[Answer] = []
        try:
            answers = seat.session.collect()
        except WorkerLostError as error:
            self.worker_lost(seat, str(error))
            return others
        for answer in answers:
            seat.ran(answer.run_ms)
            if answer.job < 0:
                seat.jobs_out -= 1
                others.append(answer)
                continue
            for job in self._jobs:
                if job.number == answer.job and job.out and job.chunk.seat is seat:
                    job.answer = _remembered(seat, job.chunk, answer)
                    seat.jobs_out -= 1
                    break
        return others

    def answered(self) -> Iterator[tuple[Chunk, Answer]]:
        """Take out the oldest, as long as the oldest is answered."""
        while self._jobs and (answer := self._jobs[0].answer) is not None:
            yield self._jobs.popleft().chunk, answer

    def park(self, seat: Seat) -> None:
        """The worker of `seat` is given back: what it had not answered waits for another."""
        seat.lost = True
        seat.jobs_out = 0
        for job in self._jobs:
            if job.chunk.seat is seat and job.out:
                job.sent, job.tries = 0.0, job.tries - 1

    def give(self, bad: Seat, good: Seat | None) -> None:
        """`bad` answers no more: `good` takes its open jobs, or (None) they fail."""
        bad.jobs_out = 0
        for job in self._jobs:
            if job.chunk.seat is bad and job.answer is None:
                job.sent, job.tries = 0.0, 0
                if good is None:
                    job.chunk.orphan = True
                    job.answer = Answer(job.number, (), 0.0, "its version was taken away")
                else:
                    job.chunk.seat = good
                    good.leases += 1

    # ---- trouble ----

    def worker_lost(self, seat: Seat, why: str) -> None:
        """Its jobs will be sent again, unless the one it ran keeps killing workers."""
        if seat.lost:
            return
        seat.lost = True
        seat.jobs_out = 0
        seat.deaths += 1
        if not seat.session.device_lost:  # else no sign of what the version is like
            seat.evidence.deaths += 1
        running = True  # jobs are run in order: only the oldest one can be to blame
        for job in self._jobs:
            if job.chunk.seat is not seat or not job.out:
                continue
            job.sent = 0.0
            if not running:
                job.tries -= 1
            elif job.tries >= self._tries_max:
                told = f"{why}; {job.tries} workers did not survive this batch"
                job.answer = Answer(job.number, (), 0.0, told)
            running = False
        self._lost(seat, why)

    def next_hang(self) -> float | None:
        """When the oldest run will have taken longer than it may (monotonic)."""
        return next((self._due(job) for job in self._jobs if job.out), None)

    def _due(self, job: Job) -> float:
        return job.sent + job.chunk.seat.run_s_max(self._run_s_max)

    def hung(self, now: float) -> None:
        """Kill a worker whose run takes longer than it may."""
        job = next((job for job in self._jobs if job.out), None)
        if job is None or now < self._due(job):
            return
        seat = job.chunk.seat
        seat.evidence.hangs += 1
        seat.evidence.why = f"it was ended after {now - job.sent:.1f} s"
        logger.warning("a run hangs", model=str(seat.ref), after_s=round(now - job.sent, 1))
        seat.session.kill()
        job.sent = now  # its end is told by the session, and not asked for twice

    def stood_still(self, gap_s: float) -> None:
        """Nobody looked for `gap_s`, the machine having stopped us all: that was no run's time."""
        for job in self._jobs:
            if job.out:
                job.sent += gap_s


def _remembered(seat: Seat, chunk: Chunk, answer: Answer) -> Answer:
    """`answer`, with the states it carries kept; a failed one where they are not what was said."""
    states = chunk.states or seat.states
    if states is not None and not answer.error:
        try:
            states.scatter(chunk.keys, seat.named(answer.outputs))
        except UnfitError as error:
            return Answer(answer.job, (), answer.run_ms, str(error))
    return answer
