"""What goes on beside the active version: a shadow, a canary, and what is kept to score again.

One of each scoring, lane's thread only.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from agent.core.blocks import Block
from agent.core.scores import ScoreColumns
from agent.core.windows import Spans
from agent.ports import Answer, Scored
from agent.runtime.batches import Chunk, divided
from agent.runtime.canary import Canary
from agent.runtime.seats import Seat
from agent.runtime.shadow import Shadow

if TYPE_CHECKING:
    from agent.runtime.scoring import Scoring


@dataclass(slots=True)
class Keep:
    """`kept` is told what `trial` scores, a version that may be taken back; the account counts."""

    trial: Seat
    kept: Callable[[Scored], None]


class Beside:
    """`shadow` scores what the active version scores; `canary` answers for some sensors."""

    def __init__(self, scoring: "Scoring") -> None:
        self.shadow: Shadow | None = None
        self.canary: Canary | None = None
        self.keep: Keep | None = None
        self._before: Seat | None = None  # of unlike windows, cut on until it is the shadow
        self._scoring = scoring
        self._over: list[Shadow] = []  # with a run still out, on a seat that may answer by now
        self._numbers: Iterator[int] = itertools.count(-1, -1)  # of runs; jobs have the others

    # ---- control ----

    def begin_shadow(self, seat: Seat, judged: Seat, share: float) -> None:
        """`seat` scores beside the active version; `judged`, one of the two, is on trial."""
        self.end_shadow()
        scoring = self._scoring
        assert scoring.slot.seat is not None
        self.shadow = Shadow(
            seat,
            scoring.slot.seat,
            judged=judged,
            numbers=self._numbers,
            share=share,
            rows_max=scoring.limits.rows_max,
            run_s_max=scoring.limits.run_s_max,
            lost=scoring.jobs.worker_lost,
        )

    def end_shadow(self) -> None:
        """Nobody scores beside the active version any more."""
        shadow, self.shadow = self.shadow, None
        if shadow is not None:
            if shadow.leave():
                self._over.append(shadow)
            self._scoring.slot.let_go(shadow.seat)

    def begin_canary(self, seat: Seat, share: float) -> None:
        """`seat`, which makes the windows of the active version, answers for some sensors."""
        scoring, active = self._scoring, self._scoring.slot.seat
        assert active is not None
        if (
            seat.states is not None
            and active.states is not None
            and seat.states.like(active.states)
        ):
            seat.states = active.states
        self.end_shadow()
        self.canary = Canary(seat, share, scoring.model, scoring.keys)

    def end_canary(self) -> None:
        """The active version answers for all again, and for what the canary had not answered."""
        canary, self.canary = self.canary, None
        if canary is not None:
            self._scoring.take_from(canary.seat, self._scoring.slot.seat)
            self._scoring.slot.let_go(canary.seat)

    def swap(self, old: Seat | None, new: Seat | None) -> None:
        """The stream changes hands: nothing goes on beside it.  Only windows of `old` that are
        unlike those of a `new` on trial are cut on: it may have to score them.
        """
        self.end_shadow()
        self.canary = None
        if not self._is_trial(new):
            self._before = None
        elif old is not None and new is not None and not self._is_trial(old):
            self._before = None if old.like(new) else old

    def seats(self) -> set[Seat]:
        """Whose answers are waited for."""
        return {part.seat for part in (self.shadow, self.canary) if part is not None}

    # ---- what the active version does ----

    def divide(self, chunk: Chunk) -> list[Chunk]:
        """`chunk`, without the rows that the canary answers."""
        return [chunk] if self.canary is None else divided(chunk, self.canary)

    def feed(self, block: Block, now: float) -> None:
        """A block came in."""
        if self.shadow is not None:
            self._keep_own(self.shadow.feed(block, now))
        elif (before := self._cut_on()) is not None:
            self._keep_own(before.windower.push(before.featurizer.featurize(block), now))

    def due(self, now: float) -> None:
        """Silence may have closed a window."""
        if self.shadow is not None:
            self._keep_own(self.shadow.due(now))
        elif (before := self._cut_on()) is not None:
            self._keep_own(before.windower.due(now))

    def answered(self, chunk: Chunk, columns: ScoreColumns, run_ms: float, seq: int) -> None:
        """A batch has its scores, the first of them number `seq`."""
        if self.shadow is not None:
            self.shadow.answered(chunk, columns, run_ms)
        if self._is_trial(chunk.seat) and self._keeps_batches_of(chunk.seat):
            self._keep(seq, chunk.keys, chunk.times, chunk.values)

    def _is_trial(self, seat: Seat | None) -> bool:
        """Whether `seat` is the version on trial: in whichever worker, it may have climbed."""
        return self.keep is not None and seat is not None and seat.ref == self.keep.trial.ref

    def _keeps_batches_of(self, seat: Seat) -> bool:
        """Whether who scores again makes the same windows; else its own are kept, and were."""
        if self.shadow is not None:
            return self.shadow.same
        active = self._scoring.slot.seat
        return self._cut_on() is None and (active is None or active.like(seat))

    def _cut_on(self) -> Seat | None:
        """Whose windows are cut on though it neither answers nor scores beside."""
        if self.shadow is not None or self.keep is None:
            self._before = None
        return self._before

    def _keep_own(self, spans: Spans | None) -> None:
        """Windows that the known good makes of the readings: it may have to score them."""
        keep = self.keep
        if keep is None or spans is None or not len(spans):
            return
        if self._is_trial(self._scoring.slot.seat):
            seq = self._scoring.account.next_seq
            self._keep(seq, spans.keys, spans.times, spans.values)

    def _keep(
        self, seq: int, keys: NDArray[Any], times: NDArray[Any], values: NDArray[Any]
    ) -> None:
        assert self.keep is not None
        self._scoring.account.tried += len(keys)
        self._scoring.dirty = True
        names = [self._scoring.keys.names[i] for i in keys.tolist()]
        release = self.keep.trial.ref.release
        self.keep.kept(Scored(seq, len(names), release, names, times, values))

    # ---- its own runs ----

    def pump(self, now: float) -> None:
        """Send what may be sent, now that the active version has been given its due."""
        if self.shadow is not None:
            self.shadow.pump(now)

    def collect(self, seat: Seat, answers: list[Answer], now: float) -> None:
        """Runs have ended that were not the active version's."""
        for shadow in self._shadows():
            if shadow.seat is seat:
                for answer in answers:
                    shadow.collect(answer, now)

    def worker_lost(self, seat: Seat) -> None:
        """The worker of `seat` is gone."""
        for shadow in self._shadows():
            if shadow.seat is seat:
                shadow.worker_lost()

    def hung(self, now: float) -> None:
        """Kill a worker whose run takes longer than it may."""
        for shadow in self._shadows():
            shadow.hung(now)

    def stood_still(self, gap_s: float) -> None:
        """The whole process was stopped for `gap_s`: that is nobody's hang."""
        for shadow in self._shadows():
            shadow.stood_still(gap_s)

    def dues(self, now: float) -> list[float | None]:
        """When there will be something to do (monotonic)."""
        dues = [shadow.next_wake(now) for shadow in self._shadows()]
        if (before := self._cut_on()) is not None:
            dues.append(before.windower.next_due())
        return dues if self.shadow is None else [self.shadow.next_due(), *dues]

    def _shadows(self) -> list[Shadow]:
        """The shadow, and those that are over but whose last run stands in somebody's way."""
        if self._over:
            users = self._scoring.seats()
            self._over = [x for x in self._over if x.busy and x.seat in users]
        return self._over if self.shadow is None else [*self._over, self.shadow]
