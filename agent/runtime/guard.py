"""The signals that stay armed after probation: what serves is doubted for as long as it serves,
be there another version on trial or not.

What no healthy version does (a bad score, a hang, a leak) condemns it at once.  What a busy machine
or a changing world does to any version (latency, scores that move) makes it suspect, and then the
version before it is asked for a second opinion: loaded once more, it scores the same windows, and
only if it would do better does the stream go back to it.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable

import structlog

from agent.core import judge
from agent.core.evidence import Evidence
from agent.core.names import ModelRef
from agent.core.rollout import Condemned, Event, Phase, Rollout, loaded
from agent.core.samples import Reservoir
from agent.ports import Clock
from agent.runtime.lane import LaneStoppedError
from agent.runtime.seats import Seat
from agent.runtime.work import Works

logger = structlog.get_logger(__name__)

LOOK_S = 0.5
LOOK_S_MIN = 0.02
BRACED_LOOK_S = 0.1  # while a run takes long
BRACED_AT = 0.25  # of the time that a run may take: loading the other one takes time, too
BRACED_S = 30.0  # after the last such run: one hiccup is seldom alone
PERIOD_S = 300.0  # what was good for so long is not doubted for what comes later
PERIOD_S_FIRST = 10.0  # who is new is looked at more often: each period is twice the one before
BASELINE_WINDOWS = 200  # fewer do not say what is usual, unless a whole period has no more
SCORES_MAX = 1024  # of a period, for its distribution
CALM = {Phase.STEADY, Phase.FETCHING, Phase.VERIFYING}  # nothing else scores beside it
GUARDED = CALM | {Phase.PREFLIGHT, Phase.SHADOW, Phase.CANARY}
OPINION_WINDOWS = 256
OPINION_S_MAX = 60.0


class Guard:
    """Of one model.  `broken` says which bar the active version breaks, there being no better one.

    `submit` takes an event for the rollout, `degraded` a sentence for people.
    """

    def __init__(
        self,
        works: Works,
        clock: Clock,
        *,
        rollout: Callable[[], Rollout],
        submit: Callable[[Event], Awaitable[None]],
        degraded: Callable[[str], None],
    ) -> None:
        self.broken = ""
        self._works = works
        self._clock = clock
        self._rollout = rollout
        self._submit = submit
        self._degraded = degraded
        self._seat: Seat | None = None
        self._braced = False  # the version before is loaded, or cannot be
        self._braced_at = 0.0
        self._look_s = LOOK_S
        self._began = 0.0
        self._period_s = PERIOD_S_FIRST
        self._so_far = (-1, 0, 0)  # what there was to see at the last look
        self._rss_bytes = 0  # when it began to serve
        self._p99_ms = math.nan  # as it was on probation, else in its first period
        self._scores: Reservoir | None = None  # the same

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._works.room.nap(self._look_s)
            with contextlib.suppress(LaneStoppedError):  # which others see to
                await self._once()

    async def _once(self) -> None:
        seat = self._works.room.scoring.slot.seat
        if seat is None or seat.closed or self._rollout().phase not in GUARDED:
            self._seat, self._braced, self._look_s = None, False, LOOK_S
            return
        if seat is not self._seat:
            await self._first(seat)
        await self._brace(seat)
        seen = seat.evidence
        so_far = (seen.windows, seen.errors, seen.hangs)
        if so_far == self._so_far and self._clock.monotonic() - self._began < self._period_s:
            return  # nothing was asked of it since
        self._so_far = so_far
        await self._look(seat)

    async def _first(self, seat: Seat) -> None:
        """Another version serves."""
        self._seat, self.broken = seat, ""
        self._p99_ms, self._scores = math.nan, None
        self._period_s = PERIOD_S_FIRST
        self._rss_bytes = await asyncio.to_thread(seat.session.rss_bytes)
        now = self._rollout()
        if now.phase is Phase.STEADY and now.previous not in (None, seat.ref):
            await self._works.past.begin(seat)  # another may have been on trial meanwhile
        seen = await self._works.trials.seen(seat, self._clock.monotonic())
        self._usual(seen, seen.comparison.ours if seen.comparison is not None else None)
        await self._renew(seat)

    def _usual(self, seen: Evidence, scores: Reservoir | None) -> None:
        """What it is held to from now on, if that was not known."""
        if seen.windows < BASELINE_WINDOWS and self._period_s < PERIOD_S:
            return
        if math.isnan(self._p99_ms):
            self._p99_ms = seen.latency.quantile(0.99)
        if self._scores is None:
            self._scores = scores

    async def _brace(self, seat: Seat) -> None:
        """A run takes long: have the version before at hand, should this one never end."""
        room = self._works.room
        jobs = room.scoring.jobs
        due = await room.on_lane(jobs.next_hang) if jobs else None  # nothing to wake a lane for
        limit_s = seat.run_s_max(room.scoring.limits.run_s_max)
        now = self._clock.monotonic()
        left_s = LOOK_S if due is None else due - now - (1.0 - BRACED_AT) * limit_s
        if (takes_long := left_s <= 0.0) and not self._braced:
            self._braced = True
            await self._other(seat, background=False)
        if takes_long:
            self._braced_at = now
        elif self._braced and now - self._braced_at > BRACED_S and not seat.evidence.hangs:
            self._braced = False
            await room.keep(loaded(self._rollout()))
        self._look_s = BRACED_LOOK_S if takes_long else min(LOOK_S, max(left_s, LOOK_S_MIN))

    async def _renew(self, seat: Seat) -> None:
        """A period begins; how long the last scores took is known on."""
        seen = Evidence(
            recent=seat.evidence.recent,
            before_p99_ms=self._p99_ms,
            rss_first_bytes=self._rss_bytes,
            memory_mb=seat.manifest.runtime.memory_mb,
        )
        if self._works.trials.bars(seat).shadow.score_distance is not None:
            seen.scores = Reservoir(SCORES_MAX)

        await self._works.room.on_lane(lambda: setattr(seat, "evidence", seen))
        self._began = self._clock.monotonic()

    async def _look(self, seat: Seat) -> None:
        seen, bars = await self._works.trials.seen(seat, self._began), self._works.trials.bars(seat)
        verdict = judge.serving(seen, bars)
        if verdict.word == "FAIL":
            await self._condemn(seat, verdict.why)
            return
        if not self._is_calm:
            return
        doubt = judge.doubt(seen, bars)
        over = seen.seconds >= self._period_s
        if over and not doubt and self._scores is not None and seen.scores is not None:
            doubt = judge.moved(self._scores, seen.scores, bars)
        if doubt:
            await self._ask(seat, doubt)
        elif over:
            await self._stands(seat, seen)

    async def _stands(self, seat: Seat, seen: Evidence) -> None:
        """A period has passed, and what it gave stands."""
        self._usual(seen, seen.scores)
        whole = self._period_s >= PERIOD_S
        self._period_s = min(PERIOD_S, 2 * self._period_s)
        if whole and seen.windows and self._works.room.scoring.beside.keep is not None:
            await self._works.past.stands(seat)
        self.broken = ""
        await self._renew(seat)

    async def _condemn(self, seat: Seat, why: str) -> None:
        if self._rollout().previous in (None, seat.ref):
            if why != self.broken:
                self.broken = why
                self._degraded(f"{seat.ref} serves on, there being no other: {why}")
            await self._renew(seat)
            return
        logger.warning("the active version breaks a bar", model=str(seat.ref), why=why)
        await self._submit(Condemned(seat.ref, f"failed while serving: {why}"))
        self._seat = None
        await asyncio.sleep(LOOK_S)

    async def _ask(self, seat: Seat, doubt: str) -> None:
        """Hear what the version before it would have said."""
        other = await self._other(seat)
        if other is None:
            self._degraded(f"{seat.ref}: {doubt}")
        else:
            logger.info("a second opinion", model=str(seat.ref), of=str(other.ref), why=doubt)
            why = await self._opinion(seat, other)
            await self._works.room.on_lane(lambda: self._end_shadow(other))
            if why:
                await self._condemn(seat, why)
                return
            await self._works.room.keep(loaded(self._rollout()))
            if not self._is_calm:  # it was not heard out
                await self._renew(seat)
                return
        self._p99_ms, self._scores = math.nan, None  # it is as it is: the world has changed
        self._period_s = PERIOD_S
        await self._renew(seat)

    def _end_shadow(self, other: Seat) -> None:
        beside = self._works.room.scoring.beside
        if beside.shadow is not None and beside.shadow.seat is other:  # and no candidate
            beside.end_shadow()

    @property
    def _is_calm(self) -> bool:
        return self._rollout().phase in CALM

    async def _other(self, seat: Seat, *, background: bool = True) -> Seat | None:
        previous: ModelRef | None = self._rollout().previous
        if previous is None or previous == seat.ref:
            return None
        other, why = await self._works.placing.beside(previous, background=background)
        if other is None:
            logger.warning("no second opinion", model=str(previous), why=why)
        return other

    async def _opinion(self, seat: Seat, other: Seat) -> str:
        """Why `other` would do better; empty if it would not."""
        works, bars = self._works, self._works.trials.bars(seat)
        await self._renew(seat)
        golden = seat.manifest.golden

        def begin() -> None:
            seat.evidence.hold_against(golden.rtol, golden.atol)
            works.room.scoring.beside.begin_shadow(other, seat, works.trials.share)

        if self._is_calm:
            await works.room.on_lane(begin)
        while self._is_calm:
            await asyncio.sleep(LOOK_S)
            seen = await self._works.trials.seen(seat, self._began)
            over = seen.seconds >= OPINION_S_MAX
            verdict = (judge.watch if over or _heard(seen) else judge.serving)(seen, bars)
            if verdict.word == "FAIL":
                return verdict.why
            assert seen.comparison is not None
            heard = seen.comparison.rows >= OPINION_WINDOWS
            if over or (heard and not judge.doubt(seen, bars)):
                break
        return ""


def _heard(seen: Evidence) -> bool:
    """Whether the other version has had its say."""
    both = seen.comparison
    if both is None:
        return False
    runs = both.run_theirs.whole(seen.now).rows
    return both.rows >= OPINION_WINDOWS or runs >= judge.RUNS_FOR_MEDIAN
