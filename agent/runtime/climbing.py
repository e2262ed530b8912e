"""No silent fallback: who runs on less than was wished for says so, and tries to climb back.

Each attempt loads the same version in a fresh worker, which has to reproduce the golden outputs on
the better provider before it takes the stream; the one that serves is not touched until then.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from agent.core.accelerators import AUTO
from agent.core.rollout import Phase
from agent.ports import Clock
from agent.runtime.models import Model, Models
from agent.runtime.seats import Seat

logger = structlog.get_logger(__name__)

LOOK_S = 2.0
Tell = Callable[[str, str, str], object]  # type of the event, model, why


class Climber:
    """`every_s` is how often a better provider is tried; 0: never.  `here` gives those that this
    onnxruntime has at all: no attempt brings another.  `tell` is told when a model is back on one.
    """

    def __init__(
        self,
        models: Models,
        clock: Clock,
        *,
        every_s: float,
        here: Callable[[], Sequence[str]],
        tell: Tell,
    ) -> None:
        self._models = models
        self._clock = clock
        self._every_s = every_s
        self._here = here
        self._tell = tell
        self._tried: dict[str, float] = {}  # model -> when, since it runs on less than it wished

    async def run(self) -> None:
        """Until cancelled."""
        while self._every_s:
            await asyncio.sleep(min(LOOK_S, self._every_s))
            for model in list(self._models.rows.values()):
                seat = model.scoring.slot.seat
                if seat is not None and self._due(model, seat):
                    await self._climb(model, seat)

    def _due(self, model: Model, seat: Seat) -> bool:
        if seat.session.provider == seat.session.wanted:
            self._tried.pop(model.name, None)
            return False
        now = self._clock.monotonic()
        waited = now - self._tried.setdefault(model.name, now)
        busy = seat.lost or seat.closed or model.driver.now.phase is not Phase.STEADY
        return not busy and waited >= self._every_s

    async def _climb(self, model: Model, seat: Seat) -> None:
        self._tried[model.name] = self._clock.monotonic()
        if not set(better(seat)) & set(await asyncio.to_thread(self._here)):
            return
        why = await model.works.placing.climb(seat)
        if why:
            logger.info("cannot climb", model=str(seat.ref), why=why)
        else:
            now = model.works.room.seats.get(seat.ref, seat).session
            logger.info("climbed", model=str(seat.ref), provider=now.provider)
            kind = "recovered" if now.provider == now.wanted else "degraded"
            self._tell(kind, model.name, f"{seat.ref} runs on {now.provider} again")
        self._tried[model.name] = self._clock.monotonic()


def better(seat: Seat) -> Sequence[str]:
    """Those it would rather run on, the best first."""
    session, wishes = seat.session, seat.manifest.runtime.providers
    if AUTO in wishes:
        return (session.wanted,)
    return wishes[: wishes.index(session.provider)] if session.provider in wishes else wishes
