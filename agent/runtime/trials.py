"""A version on trial: what is seen of it is laid before the judge until there is a verdict.

The lane gathers the evidence; here it is copied, dated and judged.  What the judge says is not
softened: a FAIL that is proven is the version's fault, one that is not is nobody's.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.core import judge
from agent.core.bars import Bars
from agent.core.errors import UnfitError, UnprovenError
from agent.core.evidence import Evidence, testimony
from agent.core.names import ModelRef
from agent.core.wire import apply_bars
from agent.ports import Clock
from agent.runtime.placing import Placing
from agent.runtime.room import Room
from agent.runtime.seats import Seat

LOOK_S = 0.2  # between looks at the evidence
ANSWERED_LOOKS_MAX = 50  # of them: a known good that hangs now is looked after elsewhere


@dataclass(frozen=True, slots=True)
class Trial:
    """One phase of one version; `began` is monotonic."""

    seat: Seat
    phase: str
    judged: judge.Judge
    began: float


class Trials:
    """The trials of one model.  `progress` is that of the one in hand, 0 to 1; `share` of one core
    is what a version may use that scores beside the active one.

    `overrides` of a version's bars are asked for at each look: where a stream has fallen silent,
    lower ones end a phase.  `see` is given the evidence at each look, `leave` when a trial ends;
    `keep` is told of a version that is about to answer.
    """

    def __init__(
        self,
        room: Room,
        placing: Placing,
        clock: Clock,
        *,
        overrides: Callable[[ModelRef], Mapping[str, Any]],
        share: float,
        keep: Callable[[Seat], Awaitable[None]],
        see: Callable[[Mapping[str, Any]], None],
        leave: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self.progress = 0.0
        self._room = room
        self._placing = placing
        self._clock = clock
        self._overrides = overrides
        self.share = share
        self._keep = keep
        self._see = see
        self._leave = leave

    async def shadow(self, seat: Seat) -> None:
        """`seat` scores what the active version scores, and is heard by nobody.

        Raises:
            UnfitError: it breaks a bar.
            UnprovenError: it did not show in time that it meets them.
        """
        bars, active = self.bars(seat), self._room.scoring.slot.seat
        if active is None or active.closed or not bars.shadow.windows:
            return
        seen = seat.evidence = self._evidence(seat)
        self._hold_against(seen, seat)
        beside = self._room.scoring.beside
        await self._room.on_lane(lambda: beside.begin_shadow(seat, seat, self.share))
        passed = False
        try:
            await self._until(seat, "shadow", judge.shadow)
            passed = True
        finally:
            if not passed:  # else it goes on, so that its windows are full when it takes over
                self._room.post(beside.end_shadow)

    async def canary(self, seat: Seat) -> None:
        """`seat` answers for a share of the sensors.

        Where it makes other windows than the active version it cannot: a sensor's open windows
        would have to be given up and begun anew twice.  Its shadow goes on, and that is all.

        Raises:
            UnfitError: it breaks a bar.
        """
        bars, active = self.bars(seat), self._room.scoring.slot.seat
        if active is None or active.closed or not bars.canary.share or not bars.canary.windows:
            return
        if not seat.like(active):
            return
        seen = self._evidence(seat)
        seen.before_p99_ms = await self._p99_ms()
        await asyncio.to_thread(seat.session.serve)
        await self._keep(seat)

        def begin() -> None:
            seat.evidence = seen
            self._room.scoring.beside.begin_canary(seat, bars.canary.share)

        await self._room.on_lane(begin)
        passed = False
        try:
            await self._until(seat, "canary", judge.canary)
            passed = True
        finally:
            if not passed:  # else it answers on, until it answers for all
                self._room.post(self._room.scoring.beside.end_canary)

    async def promoted(self, seat: Seat) -> None:
        """`seat` is about to take the stream: its probation begins there."""
        seen = self._evidence(seat)
        seen.before_p99_ms = await self._p99_ms()
        await self._room.on_lane(lambda: setattr(seat, "evidence", seen))

    async def probation(self, seat: Seat, known_good: ModelRef | None) -> None:
        """`seat` answers for all; the known good, still loaded, scores beside it.

        Raises:
            UnfitError: it breaks a bar.
        """
        bars, beside = self.bars(seat), self._room.scoring.beside
        if not (bars.probation.windows or bars.probation.time):
            return
        good = await self._known_good(known_good, seat)
        if good is not None:
            self._hold_against(seat.evidence, seat)
            await self._answered(good)
            await self._room.on_lane(lambda: beside.begin_shadow(good, seat, self.share))
        try:
            await self._until(seat, "probation", judge.probation)
        finally:
            if good is not None:
                self._room.post(lambda: self._end_beside(seat))

    async def _answered(self, good: Seat) -> None:
        """Until `good` has answered what it took before the swap, if it carries states: as a shadow
        they are its own, and the live version goes on from those of its last rows.
        """
        if good.states is None:  # the sooner it is beside, the more of it can be scored again
            return
        for _ in range(ANSWERED_LOOKS_MAX):
            if not await self._room.on_lane(lambda: good in self._room.scoring.leased()):
                return
            await asyncio.sleep(LOOK_S)

    def _end_beside(self, seat: Seat) -> None:
        """Where the trial has failed the shadow stays: it knows what the known good would say."""
        if self._room.scoring.slot.seat is seat and self.progress >= 1.0:
            self._room.scoring.beside.end_shadow()

    async def _known_good(self, ref: ModelRef | None, seat: Seat) -> Seat | None:
        if ref is None or ref == seat.ref:
            return None
        good, seat.evidence.apart = await self._placing.beside(ref)
        return good

    # ---- looking ----

    async def _until(self, seat: Seat, phase: str, judged: judge.Judge) -> None:
        """Look until the verdict is PASS."""
        self.progress = 0.0
        trial = Trial(seat, phase, judged, self._clock.monotonic())
        while True:
            verdict, told = await self._look(trial)
            self.progress = verdict.progress
            (self._see if verdict.word == "WATCH" else self._leave)(told)
            if verdict.word == "PASS":
                self.progress = 1.0
                return
            if verdict.word == "FAIL":
                raise UnfitError(verdict.why) if verdict.proven else UnprovenError(verdict.why)
            await self._room.nap(LOOK_S)

    async def _look(self, trial: Trial) -> tuple[judge.Verdict, dict[str, Any]]:
        """What the judge says to the evidence as it is now, and that evidence."""
        seat = trial.seat
        seen, bars = await self.seen(seat, trial.began), self.bars(seat)
        verdict = trial.judged(seen, bars)
        wanted = wanted_windows(bars)[trial.phase]
        told = testimony(trial.phase, seat.ref.release, seen, demands(bars), wanted)
        return verdict, {**told, "verdict": verdict.word, "why": verdict.why}

    async def seen(self, seat: Seat, began: float) -> Evidence:
        """The evidence of `seat` as it is now: a copy, dated."""
        seat.evidence.rss_bytes = await asyncio.to_thread(seat.session.rss_bytes)
        seen = await self._room.on_lane(lambda: copy.deepcopy(seat.evidence))
        seen.now = self._clock.monotonic()
        seen.seconds = seen.now - began
        return seen

    def bars(self, seat: Seat) -> Bars:
        """The bars of a version, now: its manifest's, and over them the desired document's."""
        return apply_bars(seat.manifest.rollout, self._overrides(seat.ref))

    def _evidence(self, seat: Seat) -> Evidence:
        rss = seat.session.rss_bytes()
        return Evidence(rss_first_bytes=rss, memory_mb=seat.manifest.runtime.memory_mb)

    def _hold_against(self, seen: Evidence, seat: Seat) -> None:
        golden = seat.manifest.golden
        seen.hold_against(golden.rtol, golden.atol)

    async def _p99_ms(self) -> float:
        latency = await self._room.on_lane(
            lambda: self._room.scoring.recent.whole(self._clock.monotonic())
        )
        return latency.quantile(0.99)


def wanted_windows(bars: Bars) -> dict[str, int]:
    """How many windows make a phase whole, by phase."""
    return {
        "shadow": bars.shadow.windows,
        "canary": bars.canary.windows,
        "probation": bars.probation.windows,
    }


def demands(bars: Bars) -> dict[str, Any]:
    """What is demanded, in the words of the evidence."""
    return {
        "agreement": bars.shadow.agreement,
        "score_distance": bars.shadow.score_distance,
        "errors": bars.probation.errors,
        "latency_ratio": bars.probation.latency_ratio,
    }
