"""Keeps what is trusted fresh although nothing new is desired, and says what is doubtful about it.

A device that runs the same release for a year would otherwise hear neither of a revoked key nor of
a security floor, and take every publisher for a silent one.  It installs nothing.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from random import Random

import structlog

from agent.core.errors import RefusedError, UnavailableError
from agent.core.retry import delays
from agent.ports import Clock, Fetcher
from agent.runtime.models import Models
from agent.runtime.wishes import Resolver

LOOK_S = 10.0
FIRST_S_MAX = 900.0  # after a start; spread, because a whole plant may come back at once
RETRY_S_FIRST, RETRY_S_MAX = 60.0, 3600.0
logger = structlog.get_logger(__name__)


class Freshness:
    """`tell` is given the events: type, model (none here), why; `renewed` is called when it was."""

    def __init__(
        self,
        models: Models,
        fetcher: Fetcher,
        resolver: Resolver,
        clock: Clock,
        *,
        every_s: float,
        tell: Callable[[str, str, str], None],
        renewed: Callable[[], None],
        random: Random,
    ) -> None:
        self._models = models
        self._fetcher = fetcher
        self._resolver = resolver
        self._clock = clock
        self._every_s = every_s
        self._tell = tell
        self._renewed = renewed
        self._random = random
        self._told: dict[str, str] = {}  # kind of doubt -> sentence

    def doubts(self) -> Sequence[str]:
        """See `Resolver.doubts`, for what runs here now."""
        rows = self._models.rows.items()
        active = {name: model.driver.now.active for name, model in rows}
        return self._resolver.doubts({name: ref.release for name, ref in active.items() if ref})

    async def run(self) -> None:
        """Until cancelled: ask for the metadata now and then, and tell what became doubtful."""
        waits = self._waits()
        due = self._clock.monotonic() + self._random.uniform(0, min(FIRST_S_MAX, self._every_s))
        while True:
            self._look()
            await asyncio.sleep(min(LOOK_S, self._every_s))
            if self._clock.monotonic() >= due:
                if await self._renew():
                    waits, wait = self._waits(), self._every_s * self._random.uniform(0.9, 1.1)
                else:
                    wait = next(waits)
                due = self._clock.monotonic() + wait

    def _waits(self) -> Iterator[float]:
        first_s, most_s = (min(s, self._every_s) for s in (RETRY_S_FIRST, RETRY_S_MAX))
        return delays(first_s, most_s, self._random)

    async def _renew(self) -> bool:
        """Whether it is as fresh now as it can be."""
        try:
            bundle = await self._fetcher.metadata()
            await asyncio.to_thread(self._resolver.refresh, bundle, list(self._models.rows))
        except (UnavailableError, RefusedError) as error:
            logger.warning("trust not renewed", why=str(error))
            return False
        self._renewed()
        return True

    def _look(self) -> None:
        found = {doubt.partition(":")[0]: doubt for doubt in self.doubts()}
        for kind in found.keys() - self._told.keys():
            logger.warning("trust", why=found[kind])
            self._tell("trust", "", found[kind])
        for kind in self._told.keys() - found.keys():
            self._tell("recovered", "", f"no longer {self._told[kind]}")
        self._told = found
