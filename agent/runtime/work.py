"""What each phase of a rollout does.  To return is to pass; to raise is to fail, with the blame.

Work is idempotent: after a restart the same phase begins again.  It may be cancelled at any await
until promotion.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agent.core.errors import DamagedError, UnavailableError
from agent.core.manifest import MANIFEST
from agent.core.names import Digest, ModelRef
from agent.core.packages import Package
from agent.core.rollout import LIVE, Phase, Rollout
from agent.core.survey import Seen
from agent.ports import Clock, Fetcher, Store
from agent.runtime.assessing import Assessor, manifest_first
from agent.runtime.clerk import Clerk
from agent.runtime.past import Past
from agent.runtime.placing import Placing
from agent.runtime.receipts import SwapTrace
from agent.runtime.restoring import Restoring
from agent.runtime.room import Room, read_manifest
from agent.runtime.seats import Seat
from agent.runtime.trials import Trials

TRIED = {Phase.SHADOW, Phase.CANARY, Phase.PROBATION}
IN_PLACE = {*LIVE, Phase.ROLLING_BACK}  # here the active version may have made way
CANDIDATES = {Phase.CANARY, Phase.PROMOTING, Phase.ROLLING_BACK}  # it is what may be taken back
FETCHES_MAX = 3  # of bytes that turn out not to be those that were signed


class Works:
    """The work on one model.  `progress` (0 to 1) is of the phase in hand."""

    def __init__(
        self,
        room: Room,
        store: Store,
        fetcher: Fetcher,
        clock: Clock,
        *,
        rollout: Callable[[], Rollout],
        receipt: Callable[[SwapTrace], Awaitable[None]],
        degraded: Callable[[str], None],
        changed: Callable[[], None],
        receipt_s: float,
        past: Past,
        shadow_share: float,
        assessor: Assessor,
    ) -> None:
        self.room = room
        self.placing = Placing(room, store, assessor)
        self.restoring = Restoring(room, self._whole)
        self.warnings: Sequence[str] = ()  # about the stream, as the candidate wants it
        self.packages: dict[Digest, Package] = {}
        self._overrides: dict[Digest, Mapping[str, Any]] = {}
        self._newest: Mapping[str, Any] = {}  # for those that were not wished for since the start
        self.past = past
        self.clerk = Clerk(room, clock, receipt, receipt_s)
        self.trials = Trials(
            room,
            self.placing,
            clock,
            overrides=lambda ref: self._overrides.get(ref.digest, self._newest),
            share=shadow_share,
            keep=past.begin,
            see=self.clerk.see,
            leave=self.clerk.leave,
        )
        self.swaps = 0
        self.rollbacks = 0
        self._store = store
        self._fetcher = fetcher
        self._clock = clock
        self._rollout = rollout
        self._degraded = degraded
        self._changed = changed
        self._assessor = assessor
        self._fetched = 0.0

    @property
    def progress(self) -> float:
        """Of the phase in hand, 0 to 1."""
        if self._rollout().phase in TRIED:
            return self.trials.progress
        return self._fetched if self._rollout().phase is Phase.FETCHING else 0.0

    def wished(self, package: Package, overrides: Mapping[str, Any]) -> None:
        """`package` is desired, with `overrides` of its bars, from the next look on."""
        self.packages[package.ref.digest] = package
        self._newest = self._overrides[package.ref.digest] = overrides

    def by_phase(self) -> dict[Phase, Callable[[ModelRef], Awaitable[None]]]:
        """The work of each phase, for the driver."""
        return {
            Phase.FETCHING: self.fetch,
            Phase.VERIFYING: self.verify,
            Phase.PREFLIGHT: self.preflight,
            Phase.SHADOW: self.shadow,
            Phase.CANARY: self.canary,
            Phase.PROMOTING: self.promote,
            Phase.PROBATION: self.probation,
            Phase.ROLLING_BACK: self.roll_back,
            Phase.RETIRING: self.retire,
        }

    async def restore(self, rollout: Rollout) -> None:
        """After a start: the version that was active scores again, before anything else; or the
        known good, where that one was being rolled back.
        """
        ref = rollout.active
        if rollout.phase is Phase.ROLLING_BACK and rollout.known_good is not None:
            ref = rollout.known_good
        if ref is not None:
            seat = await self.restoring.seat(ref, rollout)
            if not self.restoring.is_wanted:
                return  # a rollout was quicker than the fetching
            if _may_be_taken_back(rollout):
                await self.past.begin(seat)
            await self.room.swap(seat, None)
            self._tell_fallback(seat)

    async def _whole(self, ref: ModelRef) -> None:
        await self.fetch(ref)  # what the store has lost
        await self.verify(ref)

    async def fetch(self, ref: ModelRef) -> None:
        """Every file of the package, into the store's partials; what tells whether the rest is
        worth it comes first.
        """
        self._fetched = 0.0
        if await asyncio.to_thread(self._store.path_of, ref) is not None:
            return
        package = self._package(ref)
        await self._assessor.demands(package)
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            was, self._fetched = self._fetched, min(1.0, done / max(1, package.size))
            if round(was, 1) != round(self._fetched, 1):  # as finely as it is told
                self._changed()

        for file in manifest_first(package):
            partial = await asyncio.to_thread(self._store.partial, package, file)
            try:
                missing = sum(end - start for start, end in partial.holes())
                count(file.size - missing)
                if missing:
                    await self._fetcher.fetch(file, partial, count)
            finally:
                partial.close()
            if file.path == MANIFEST:
                self.warnings = await self._assessor.stream(package, self._store, self._survey)

    async def _survey(self) -> Seen:
        return await self.room.on_lane(self.room.intake.survey.seen)

    async def verify(self, ref: ModelRef) -> None:
        """Size and SHA-256 of every file, before anything parses it; then the manifest.

        What is damaged or, after a power cut, missing is fetched again.
        """
        folder = await asyncio.to_thread(self._store.path_of, ref)
        tries = 0
        while folder is None:
            tries += 1
            try:
                folder = await asyncio.to_thread(self._store.adopt, self._package(ref))
            except DamagedError as error:
                if tries == FETCHES_MAX:
                    raise DamagedError(f"{error}, {tries} times; see to the repository") from error
                await self.fetch(ref)
            except UnavailableError:
                if tries == FETCHES_MAX:
                    raise
                await self.fetch(ref)
        await asyncio.to_thread(read_manifest, folder, ref)

    async def preflight(self, ref: ModelRef) -> None:
        """Load it at the lowest priority beside the live one, and have it reproduce its golden
        outputs in the process that will serve.
        """
        await self.clerk.open("swap", self._rollout().active, ref)
        await self.placing.seat(ref, background=True)

    async def shadow(self, ref: ModelRef) -> None:
        """The candidate scores what the active version scores, and is heard by nobody."""
        await self.trials.shadow(await self.placing.seat(ref, background=True))

    async def canary(self, ref: ModelRef) -> None:
        """The candidate answers for a share of the sensors."""
        await self.trials.canary(await self.placing.seat(ref, background=True))

    async def promote(self, ref: ModelRef) -> None:
        """The candidate takes the stream at a batch boundary."""
        seat = await self.placing.seat(ref, background=True)
        trace = await self.clerk.of(self._rollout().active, ref)
        await self.trials.promoted(seat)
        if self._rollout().known_good is not None:
            await self.past.begin(seat)
        await self.room.swap(seat, trace)
        self.clerk.swapped(trace)
        self.swaps += 1
        self._tell_fallback(seat)

    async def probation(self, ref: ModelRef) -> None:
        """Watch it serve until it has shown enough, or too much."""
        seat = await self.room.seat(ref, background=False)
        if self._rollout().active == ref and self.room.scoring.slot.seat is not seat:
            if self._rollout().known_good is not None:
                await self.past.begin(seat)
            await self.room.swap(seat, None)  # after a restart in mid-probation
        await self.trials.probation(seat, self._rollout().known_good)
        await self.past.stands(seat, forget=self._rollout().known_good in (None, ref))

    async def roll_back(self, ref: ModelRef) -> None:
        """The known good takes the stream, and all that the bad version has not answered; then it
        scores again what that one had.
        """
        rollout = self._rollout()
        good = None
        if rollout.known_good is not None:
            good = await self.placing.seat(rollout.known_good, background=False)
        why = rollout.reason or f"{ref} is not wished for any more"
        left = ref if rollout.active in (None, rollout.known_good) else rollout.active
        trace = await self.clerk.open("rollback", left, rollout.known_good, why)
        await self.room.take_back(self.room.seats.get(ref), good, trace)
        self.rollbacks += 1
        trace.rescoring = True
        self.clerk.swapped(trace)
        try:
            trace.rescored = await self.past.score_again(ref, good)
        finally:
            trace.rescoring = False
        await self.clerk.keep(trace)  # it is not done again once the journal has passed it

    @property
    def made_way(self) -> bool:
        """Whether the active version was dropped for a candidate that has not come in."""
        seat = self.room.scoring.slot.seat
        return seat is not None and seat.closed and self._rollout().phase not in IN_PLACE

    async def retire(self, ref: ModelRef) -> None:  # noqa: ARG002  # as every work
        """Nothing scores this model's stream any more."""
        await self.room.swap(None, None)
        await self.past.end()

    def _tell_fallback(self, seat: Seat) -> None:
        if seat.session.fallback:
            self._degraded(seat.session.fallback)

    def _package(self, ref: ModelRef) -> Package:
        package = self.packages.get(ref.digest)
        if package is None:
            raise UnavailableError(
                f"the list of {ref}'s files has not come from the repository yet"
            )
        return package


def _may_be_taken_back(rollout: Rollout) -> bool:
    """Whether there is a version to take the place of the active one, if that turns out bad."""
    if rollout.phase in CANDIDATES:
        return False
    return rollout.previous is not None or rollout.known_good not in (None, rollout.active)
