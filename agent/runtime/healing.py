"""Brings lost workers back; a version that keeps killing its workers is condemned.

The lane tells of a loss and goes on with other models; reviving happens in a thread of the pool.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from random import Random

import structlog

from agent.core.errors import MisfitError, UnavailableError, UnfitError
from agent.core.names import ModelRef
from agent.core.retry import delays
from agent.ports import Clock
from agent.runtime.lane import Lane
from agent.runtime.scoring import Scoring
from agent.runtime.seats import Seat

logger = structlog.get_logger(__name__)

RETRY_S_FIRST = 0.1
RETRY_S_MAX = 10.0
TRIES_MAX = 10  # of one revival, before it is somebody's verdict


class Healer:
    """`condemned` is told of a version that should serve no more, and why; `changed` of any news.
    Both are called from other threads.
    """

    def __init__(
        self,
        lane: Lane,
        pool: Executor,
        clock: Clock,
        *,
        deaths_max: int,
        deaths_s: float,
        condemned: Callable[[str, ModelRef, str], None],
        changed: Callable[[], None],
        random: Random,
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._clock = clock
        self.deaths_max = deaths_max
        self._deaths_s = deaths_s
        self._condemned = condemned
        self._changed = changed
        self._random = random
        self._deaths: dict[ModelRef, deque[float]] = {}
        self._stopping = threading.Event()

    def lost(self, scoring: Scoring, seat: Seat, why: str) -> None:
        """A worker is gone.  Called on the lane's thread."""
        logger.warning("worker lost", model=str(seat.ref), why=why)
        self._changed()
        if not seat.session.device_lost:  # else the version is not to blame
            self._count(scoring, seat, why)
        self._pool.submit(self._revive, scoring, seat)

    def _count(self, scoring: Scoring, seat: Seat, why: str) -> None:
        now = self._clock.monotonic()
        deaths = self._deaths.setdefault(seat.ref, deque(maxlen=self.deaths_max))
        deaths.append(now)
        if len(deaths) == self.deaths_max and now - deaths[0] <= self._deaths_s:
            deaths.clear()
            self._condemned(scoring.model, seat.ref, f"{why}, {self.deaths_max} times")

    def stop(self) -> None:
        """Revive nothing more."""
        self._stopping.set()

    def _revive(self, scoring: Scoring, seat: Seat) -> None:
        """Until it is done: where no other version takes over, the stream waits for this one."""
        waits = delays(RETRY_S_FIRST, RETRY_S_MAX, self._random)
        for tries, delay_s in enumerate(waits, 1):
            if self._stopping.is_set() or seat.closed:
                return
            try:
                seat.session.revive()
            except (UnavailableError, UnfitError, MisfitError) as error:
                logger.warning("cannot revive", model=str(seat.ref), why=str(error))
                if tries == TRIES_MAX:
                    why = f"its worker cannot be brought back: {error}"
                    self._condemned(scoring.model, seat.ref, why)
                self._stopping.wait(delay_s)
            else:
                logger.info("worker revived", model=str(seat.ref))
                self._lane.call(seat.revived)
                self._changed()
                return
