"""Gets a version loaded where memory is short: beside the active one, or in its place.

In its place means: the active version ends what it has in hand, its memory is given back, and what
comes meanwhile waits (in memory, within the bound of the lane, where the new version makes the same
windows; else with its source) until the new version answers it.
"""

import asyncio
from pathlib import Path

import structlog

from agent.core.errors import DamagedError, MisfitError, UnavailableError, UnfitError
from agent.core.fitting import DropFirst, Need
from agent.core.manifest import Manifest
from agent.core.names import Digest, ModelRef
from agent.ports import Store
from agent.runtime.assessing import Assessor
from agent.runtime.room import Room, read_manifest
from agent.runtime.seats import Seat

logger = structlog.get_logger(__name__)

MB = 2**20
IDLE_S_MAX = 5.0  # for what is in hand to end, before the active version is let go all the same
LOOK_S = 0.02


class Placing:
    """Of one model."""

    def __init__(self, room: Room, store: Store, assessor: Assessor) -> None:
        self._room = room
        self._store = store
        self._assessor = assessor
        self._measured: dict[Digest, float] = {}  # MB, of what was loaded here

    async def seat(self, ref: ModelRef, *, background: bool) -> Seat:
        """The seat of `ref`, loaded and proven if it was not yet.

        Raises:
            MisfitError: there is no memory for it, whatever is dropped.
            UnfitError, MisfitError, UnavailableError: as `Room.seat`.
        """
        if ref in self._room.seats:
            return await self._room.seat(ref, background=background)
        manifest, need = await self._need(ref)
        active = self._room.scoring.slot.seat
        if active is not None and active.closed:
            active = None
        async with self._assessor.placed(
            ref, need, manifest.runtime.memory, active_bytes=_rss_bytes(active)
        ) as decided:
            if active is not None and isinstance(decided, DropFirst):
                logger.info("dropped first", model=str(active.ref), for_=str(ref))
                await self._drop(active, manifest)
            seat = await self._room.seat(ref, background=background)
        self._measured[ref.digest] = await asyncio.to_thread(seat.session.rss_bytes) / MB
        return seat

    async def beside(self, ref: ModelRef, *, background: bool = True) -> tuple[Seat | None, str]:
        """The seat of `ref`, if it can be had beside the active version; else None, and why not."""
        try:
            if ref in self._room.seats:
                return await self._room.seat(ref, background=background), ""
            manifest, need = await self._need(ref)
            active = self._room.scoring.slot.seat
            async with self._assessor.placed(
                ref, need, manifest.runtime.memory, active_bytes=_rss_bytes(active)
            ) as decided:
                if isinstance(decided, DropFirst):
                    return None, f"there is no memory for {ref} beside the active version"
                return await self._room.seat(ref, background=background), ""
        except (UnfitError, MisfitError, UnavailableError) as error:
            return None, str(error)

    async def climb(self, seat: Seat) -> str:
        """Put the version of `seat` on something better, in a fresh worker beside it; why that is
        not to be had, empty if it now serves.
        """
        manifest, need = await self._need(seat.ref)
        try:
            async with self._assessor.placed(
                seat.ref, need, manifest.runtime.memory, active_bytes=_rss_bytes(seat)
            ) as decided:
                if isinstance(decided, DropFirst):
                    return "there is no memory for a second worker beside the active one"
                await self._room.climb(seat)
        except (UnfitError, MisfitError, UnavailableError) as error:
            return str(error)
        return ""

    async def _need(self, ref: ModelRef) -> tuple[Manifest, Need]:
        folder = await asyncio.to_thread(self._store.path_of, ref)
        if folder is None:
            raise DamagedError(f"the files of {ref} are not in the store, or not whole")
        manifest = await asyncio.to_thread(read_manifest, folder, ref)
        return manifest, Need(
            stated_mb=manifest.runtime.memory_mb,
            measured_mb=self._measured.get(ref.digest),
            package_bytes=await asyncio.to_thread(_bytes_in, folder),
        )

    async def _drop(self, active: Seat, heir: Manifest) -> None:
        """Give the active version's memory back; it stays in the slot, and answers no more."""
        scoring = self._room.scoring
        mine = active.manifest
        if (mine.features, mine.window) != (heir.features, heir.window):
            await self._room.on_lane(lambda: setattr(scoring, "restoring", True))
        for _ in range(round(IDLE_S_MAX / LOOK_S)):
            if await self._room.on_lane(lambda: _parked(active)):
                break
            await asyncio.sleep(LOOK_S)
        await self._room.drop(active)


def _parked(active: Seat) -> bool:
    """From now on it is sent nothing more; whether it has answered what it was sent."""
    active.parked = True
    return active.jobs_out == 0 or active.lost


def _rss_bytes(active: Seat | None) -> int | None:
    return None if active is None else active.session.rss_bytes()


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
