"""After a start: the version that was active scores again, before anything else.

Where its files are damaged they are fetched again, and the version before it stands in until they
are there: a device without a network scores all the same.  The rollout is not told: what is active
does not change because a disk forgot some of it.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from agent.core.errors import DamagedError, MisfitError, UnavailableError, UnfitError
from agent.core.names import ModelRef
from agent.core.rollout import Rollout
from agent.runtime.room import Room
from agent.runtime.seats import Seat

logger = structlog.get_logger(__name__)

MEND_S = 1.0  # for what a near repository mends: nobody stands in for so short a time


class Restoring:
    """Of one model.  `whole` returns once the files of a version are in the store, and proven."""

    def __init__(self, room: Room, whole: Callable[[ModelRef], Awaitable[None]]) -> None:
        self._room = room
        self._whole = whole
        self._stand_in: Seat | None = None

    @property
    def stands_in(self) -> ModelRef | None:
        """Which version scores in place of the active one, if one does."""
        seat = self._room.scoring.slot.seat
        if seat is None or seat.closed or seat is not self._stand_in:
            return None
        return seat.ref

    @property
    def is_wanted(self) -> bool:
        """Whether nothing scores but, at the most, one that stands in."""
        seat = self._room.scoring.slot.seat
        return seat is None or seat.closed or self.stands_in is not None

    async def seat(self, ref: ModelRef, now: Rollout) -> Seat:
        """The seat of `ref`, loaded; while its files are being fetched another may have the slot.

        Raises:
            UnfitError, MisfitError, UnavailableError: as `Room.seat`, and as fetching does.
        """
        await self._mend(ref, now)
        try:
            return await self._room.seat(ref, background=False)
        except DamagedError as error:  # who loads it has looked at every byte
            logger.warning("damaged, and fetched again", model=str(ref), why=str(error))
        await self._mend(ref, now)
        return await self._room.seat(ref, background=False)

    async def _mend(self, ref: ModelRef, now: Rollout) -> None:
        mending = asyncio.ensure_future(self._whole(ref))
        try:
            await asyncio.wait([mending], timeout=MEND_S)
            if not _succeeded(mending) and self.is_wanted and self.stands_in is None:
                other = await self._other(ref, now)
                if other is not None and not _succeeded(mending):
                    self._stand_in = other
                    await self._room.swap(other, None)
                    logger.warning("another stands in", model=str(ref), other=str(other.ref))
            await mending
        finally:
            mending.cancel()

    async def _other(self, ref: ModelRef, now: Rollout) -> Seat | None:
        """The newest that has stood its probation, and loads, if there is one."""
        for other in (now.known_good, now.previous):
            if other is None or other == ref or other.release < now.floor:
                continue
            try:
                return await self._room.seat(other, background=False)
            except (UnfitError, MisfitError, UnavailableError) as error:
                logger.warning("cannot stand in", model=str(other), why=str(error))
        return None


def _succeeded(task: "asyncio.Future[None]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
