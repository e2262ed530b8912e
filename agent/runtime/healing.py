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
HEIR_S_MAX = 10.0  # for the version that takes over: what kills workers kills the next one too


class Healer:
    """`condemned` is told of a version that should serve no more, and why, and says whether another
    is about to take over; `gives_way` says whether another would; `fell` is told of a model whose
    version came back on a lesser provider, and why; `changed` of any news.  All are called from
    other threads.
    """

    def __init__(
        self,
        lane: Lane,
        pool: Executor,
        clock: Clock,
        *,
        deaths_max: int,
        deaths_s: float,
        condemned: Callable[[str, ModelRef, str], bool],
        changed: Callable[[], None],
        random: Random,
        gives_way: Callable[[str, ModelRef], bool] = lambda *_: False,
        fell: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._clock = clock
        self.deaths_max = deaths_max
        self._deaths_s = deaths_s
        self._condemned = condemned
        self._changed = changed
        self._gives_way = gives_way
        self._fell = fell
        self._random = random
        self._deaths: dict[ModelRef, deque[float]] = {}
        self._stopping = threading.Event()

    def lost(self, scoring: Scoring, seat: Seat, why: str) -> None:
        """A worker is gone.  Called on the lane's thread."""
        logger.warning("worker lost", model=str(seat.ref), why=why)
        self._changed()
        # where the device was lost the version is not to blame; an heir is to score its batch
        heir = not seat.session.device_lost and self._count(scoring, seat, why)
        if seat.evidence.hangs:  # a verdict by itself: nothing is to start beside who takes over
            heir = heir or self._gives_way(scoring.model, seat.ref)
        self._pool.submit(self._revive, scoring, seat, HEIR_S_MAX if heir else 0.0)

    def _count(self, scoring: Scoring, seat: Seat, why: str) -> bool:
        """Whether that was one death too many, and another version takes over."""
        now = self._clock.monotonic()
        deaths = self._deaths.setdefault(seat.ref, deque(maxlen=self.deaths_max))
        deaths.append(now)
        if len(deaths) < self.deaths_max or now - deaths[0] > self._deaths_s:
            return False
        deaths.clear()
        return self._condemned(scoring.model, seat.ref, f"{why}, {self.deaths_max} times")

    def stop(self) -> None:
        """Revive nothing more."""
        self._stopping.set()

    def _revive(self, scoring: Scoring, seat: Seat, wait_s: float) -> None:
        """Until it is done: where no other version takes over, the stream waits for this one."""
        self._stopping.wait(wait_s)
        waits = delays(RETRY_S_FIRST, RETRY_S_MAX, self._random)
        for tries, delay_s in enumerate(waits, 1):
            if self._stopping.is_set() or seat.closed:
                return
            before = seat.session.provider
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
                if (now := seat.session.provider) not in (before, seat.session.wanted):
                    why = f"{seat.ref} fell from {before} to {now}: {seat.session.fallback}"
                    self._fell(scoring.model, why)
                self._changed()
                return
