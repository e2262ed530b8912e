"""A version that is taken away, whose windows are not its heir's: nobody can take them over.

So it ends what it has under way, if it can do so at once; its readings would be rejected otherwise.
"""

import asyncio
from typing import TYPE_CHECKING

from agent.ports import Clock
from agent.runtime.seats import Seat

if TYPE_CHECKING:
    from agent.runtime.room import Room

ANSWERS_S_MAX = 1.0
LOOK_S = 0.01


async def last_answers(room: "Room", seat: Seat, clock: Clock) -> None:
    """Until `seat` has answered all that it took; not if its worker is gone, or hangs."""
    deadline = clock.monotonic() + ANSWERS_S_MAX

    def is_over() -> bool:
        gone = seat.lost or seat.closed or seat.evidence.hangs > 0
        return gone or seat not in room.scoring.leased()

    while not await room.on_lane(is_over) and clock.monotonic() < deadline:  # noqa: ASYNC110  the lane tells nobody
        await asyncio.sleep(LOOK_S)
