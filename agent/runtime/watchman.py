"""Looks after what nobody else does: too old is given up, accounts balance, the lane lives, and
what the disk says no to is told.
"""

import asyncio
from collections.abc import Callable

from agent.core.health import HealthReport
from agent.ports import Clock, Outbox
from agent.runtime.events import Events
from agent.runtime.lane import Lane

LOOK_S = 1.0
BEAT_S_MAX = 60.0  # a lane silent for longer is stuck in native code, or we are


class Watchman:
    """`report` gives the last health report."""

    def __init__(
        self,
        lane: Lane,
        outbox: Outbox,
        events: Events,
        clock: Clock,
        report: Callable[[], HealthReport],
    ) -> None:
        self._lane = lane
        self._outbox = outbox
        self._events = events
        self._clock = clock
        self._report = report
        self._told: set[str] = set()
        self._disk = ""  # why the disk said no, as last told

    async def run(self) -> None:
        """Until cancelled, or until the lane has failed: then the process has to end.

        Raises:
            RuntimeError: the lane is gone.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            if self._lane.failed is not None:
                msg = "the scoring lane has failed"
                raise RuntimeError(msg) from self._lane.failed
            if self._clock.monotonic() - self._lane.beat > BEAT_S_MAX:
                msg = f"the scoring lane has not turned for {BEAT_S_MAX:.0f} s"
                raise RuntimeError(msg)
            self._outbox.tidy()
            self._breaches()
            self._weather()

    def _weather(self) -> None:
        """An event waits for the disk like all else; who listens here has it at once."""
        why = self._outbox.trouble().why
        if why and not self._disk:
            self._events.tell("degraded", "", why)
        elif self._disk and not why:
            self._events.tell("recovered", "", f"no longer: {self._disk}")
        self._disk = why

    def _breaches(self) -> None:
        for name, model in self._report().models.items():
            if model.counts.balanced:
                self._told.discard(name)
            elif name not in self._told:
                self._told.add(name)
                counts = model.counts.document()
                self._events.tell("breach", name, "the account does not balance", counts=counts)
