"""What one model has loaded: the seats of its versions, and the way to the lane.

A version that is wanted and not loaded is loaded from the store, proven on its golden samples, and
kept until the rollout no longer wants it.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent.core import manifest as manifests
from agent.core import preflight
from agent.core.brief import blamed
from agent.core.errors import DamagedError, MisfitError, RefusedError, UnavailableError, UnfitError
from agent.core.manifest import MANIFEST, Manifest
from agent.core.names import ModelRef
from agent.ports import Clock, Engine, Store
from agent.runtime.intake import Intake
from agent.runtime.lane import Lane, LaneStoppedError
from agent.runtime.leaving import last_answers
from agent.runtime.receipts import SwapTrace
from agent.runtime.scoring import Scoring
from agent.runtime.seats import Seat, ready

T = TypeVar("T")


class Room:
    """The sessions of one model on one stream.  All but `released` belong to the event loop."""

    def __init__(
        self,
        lane: Lane,
        *,
        intake: Intake,
        scoring: Scoring,
        engine: Engine,
        store: Store,
        clock: Clock,
    ) -> None:
        """Made on the event loop it will belong to."""
        self._loop = asyncio.get_running_loop()
        self.intake = intake
        self.scoring = scoring
        self.seats: dict[ModelRef, Seat] = {}
        self._lane = lane
        self._engine = engine
        self._store = store
        self._clock = clock
        self._retired: set[Seat] = set()  # wanted no more, still leased
        self._closing: set[asyncio.Task[None]] = set()
        self._alarm = asyncio.Event()  # of those that nap now
        self._loading = asyncio.Lock()  # two that want one version get one session

    async def on_lane(self, function: Callable[[], T]) -> T:
        """Run `function` on the lane's thread."""
        return await asyncio.wrap_future(self._lane.call(function))

    async def nap(self, seconds: float) -> None:
        """Until `seconds` have passed, or sooner a worker is lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._alarm.wait()

    def wake(self) -> None:
        """A worker is lost: there is something to look at.  From any thread."""
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._alarm.set()
        self._alarm = asyncio.Event()

    def post(self, function: Callable[[], object]) -> None:
        """Run `function` on the lane's thread some time, before whatever is asked of it after: for
        who is cancelled and cannot wait, for the lane may have stopped.
        """
        with contextlib.suppress(LaneStoppedError):
            self._lane.call(function)

    async def seat(self, ref: ModelRef, *, background: bool) -> Seat:
        """The seat of `ref`, loaded and proven if it was not yet.

        Raises:
            UnfitError, MisfitError, UnavailableError: as `Engine.load`; UnfitError too where the
                golden outputs are not reproduced, MisfitError where a candidate takes more time or
                memory than it promised.
            DamagedError: its files are not those that were signed any more, or not all there.
        """
        async with self._loading:
            if (seat := self.seats.get(ref)) is None:
                seat = self.seats[ref] = await self._loaded(ref, background=background)
        return seat

    async def _loaded(self, ref: ModelRef, *, background: bool) -> Seat:
        folder = await asyncio.to_thread(self._store.path_of, ref)
        if folder is None:
            raise DamagedError(f"the files of {ref} are not in the store, or not whole")
        manifest = await asyncio.to_thread(read_manifest, folder, ref)
        try:
            await self.on_lane(lambda: self.intake.decoder.want(manifest.features.names))
        except RefusedError as error:
            raise MisfitError(f"{ref} does not go with the stream: {error}") from error
        # with nobody to disturb, the lowest class would only keep the first scores waiting
        low = background and await self.on_lane(self._serves)
        try:
            return await self._uncancelled(
                lambda: self._load(ref, folder, manifest, low=low, candidate=background)
            )
        except DamagedError:
            await asyncio.to_thread(self._store.distrust, ref)  # so that it is fetched anew
            raise

    def _serves(self) -> bool:
        """Whether some version scores some stream."""
        return any(scoring.slot.seat is not None for scoring in self._lane.scorings())

    def _load(
        self, ref: ModelRef, folder: Path, manifest: Manifest, *, low: bool, candidate: bool
    ) -> Seat:
        session = self._engine.load(ref, folder, manifest, background=low)
        try:
            golden = session.golden()
            if not golden.ok:
                raise blamed(ref, golden.blame or "unfit", golden.why)
            if candidate:  # what has served is not turned away for a busy start
                preflight.check(ref, manifest.runtime, session.measure())
            return ready(manifest, session, self.intake.spec.late_s)
        except BaseException:
            session.close()
            raise

    async def _uncancelled(self, load: Callable[[], Seat]) -> Seat:
        """Loading in a thread; if the wish is withdrawn meanwhile, what was loaded is closed."""
        future = asyncio.get_running_loop().run_in_executor(None, load)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_close_late)
            raise

    async def climb(self, seat: Seat) -> None:
        """Load the version of `seat` once more; where that worker runs on something better, the
        stream is its, and windows and state go on.

        Raises:
            MisfitError: it runs on nothing better; the text says why.
            UnfitError, UnavailableError: it does not load now, or was swapped away meanwhile.
        """
        folder = await asyncio.to_thread(self._store.path_of, seat.ref)
        if folder is None:
            raise UnavailableError(f"the files of {seat.ref} are not in the store")
        fresh = await self._uncancelled(
            lambda: self._load(seat.ref, folder, seat.manifest, low=True, candidate=True)
        )
        if fresh.session.provider == seat.session.provider:
            await asyncio.to_thread(fresh.session.close)
            raise MisfitError(fresh.session.fallback)
        await asyncio.to_thread(fresh.session.serve)

        def swap() -> bool:
            if self.scoring.slot.seat is not seat or seat.closed:
                return False
            self.scoring.swap(fresh)
            return True

        if not await self.on_lane(swap):
            await asyncio.to_thread(fresh.session.close)
            raise UnavailableError(f"{seat.ref} does not serve any more")
        self.seats[seat.ref] = fresh
        self._retired.add(seat)
        if not await self.on_lane(lambda: seat in self.scoring.seats()):
            await self._close(seat)

    async def watch(self, trace: SwapTrace) -> None:
        """Follow the stream for a receipt from now on."""
        trace.rss_before = self.rss_bytes()

        def begin() -> None:
            trace.watch(self.scoring.recent, self._clock.monotonic())
            self.scoring.trace = trace

        await self.on_lane(begin)

    async def swap(self, seat: Seat | None, trace: SwapTrace | None) -> None:
        """`seat` takes the stream from the next reading on; and what waits, if the version before
        it was dropped to make room.
        """
        if seat is not None:
            await asyncio.to_thread(seat.session.serve)
        if trace is not None:
            trace.time = self._clock.wall()

        def swap() -> None:
            old = self.scoring.swap(seat, trace)
            if old is not None and old is not seat and old.closed:
                self.scoring.take_from(old, seat)

        await self.on_lane(swap)

    async def take_back(self, bad: Seat | None, good: Seat | None, trace: SwapTrace) -> None:
        """`good` takes the stream and all that `bad` has not answered."""
        if good is not None:
            await asyncio.to_thread(good.session.serve)
        trace.time = self._clock.wall()
        old = await self.on_lane(lambda: self.scoring.swap(good, trace))
        for taken in dict.fromkeys((bad, old)):  # two, where one was a canary
            if taken is not None and taken is not good:
                if good is not None and not good.like(taken):
                    await last_answers(self, taken, self._clock)
                await self.on_lane(partial(self.scoring.take_from, taken, good))

    async def drop(self, active: Seat) -> None:
        """Give back the session of the seat in the slot, which stays there and answers no more."""
        self.seats.pop(active.ref, None)
        active.closed = True
        await self.on_lane(lambda: self.scoring.jobs.park(active))
        await asyncio.to_thread(active.session.close)

    async def keep(self, wanted: frozenset[ModelRef]) -> None:
        """Let go of every session not of `wanted`, as soon as nothing in flight needs it."""
        for ref in [ref for ref in self.seats if ref not in wanted]:
            seat = self.seats.pop(ref)
            self._retired.add(seat)
            needed = await self.on_lane(lambda seat=seat: seat in self.scoring.seats())  # type: ignore[misc]
            if not needed:
                await self._close(seat)

    def released(self, seat: Seat) -> None:
        """Nothing in flight needs `seat` any more.  Called on the lane's thread."""
        if seat in self._retired:
            self._loop.call_soon_threadsafe(self._close_soon, seat)

    def _close_soon(self, seat: Seat) -> None:
        task = asyncio.ensure_future(self._close(seat))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, seat: Seat) -> None:
        if seat in self._retired:
            self._retired.discard(seat)
            seat.closed = True
            await asyncio.to_thread(seat.session.close)

    async def close(self) -> None:
        """Let go of everything; the lane has stopped."""
        for seat in [*self.seats.values(), *self._retired]:
            await asyncio.to_thread(seat.session.close)
        self.seats.clear()
        self._retired.clear()

    def holds(self, ref: ModelRef | None) -> bool:
        """Whether a session of `ref` is still there."""
        return any(seat.ref == ref for seat in [*self.seats.values(), *self._retired])

    def doing(self, ref: ModelRef | None) -> str:
        """On whom `ref` is being loaded just now, for a person; empty if it is not."""
        return self._engine.doing(ref) if ref is not None else ""

    def rss_bytes(self) -> int:
        """Of all its workers."""
        return sum(seat.session.rss_bytes() for seat in [*self.seats.values(), *self._retired])


def read_manifest(folder: Path, ref: ModelRef) -> Manifest:
    """The manifest of the package in `folder`, which must be one of `ref`'s model.

    Raises:
        UnfitError: it is not.
        UnavailableError: it cannot be read.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise UnfitError(f"{ref} has no model.toml") from error
    except OSError as error:
        raise UnavailableError(f"cannot read model.toml of {ref}: {error.strerror}") from error
    manifest = manifests.parse(raw)
    if manifest.name != ref.name:
        raise UnfitError(f"model.toml is of {manifest.name}, not of {ref.name}")
    return manifest


def _close_late(future: "asyncio.Future[Seat] | Future[Seat]") -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().session.close()
