"""Ends the process when it is no longer live, so that whatever runs it starts it anew.

IoT Edge looks at no container health check: a module that hangs stays, unless it exits.  A thread
of its own, because what it guards against is that nothing else moves.
"""

import asyncio
import os
import threading
from collections.abc import Callable

import structlog

from agent.ports import Clock

EXIT_STATUS = 70  # as sysexits.h calls an internal error
LOOK_S = 1.0

logger = structlog.get_logger(__name__)


def _exit() -> None:
    os._exit(EXIT_STATUS)  # an orderly end would wait for what hangs; the journal makes this safe


class Watchdog:
    """Calls `end` once the event loop, or `is_live`, has said nothing good for `patience_s`."""

    def __init__(
        self,
        clock: Clock,
        patience_s: float,
        is_live: Callable[[], bool],
        *,
        end: Callable[[], None] = _exit,
        look_s: float = LOOK_S,
    ) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._is_live = is_live
        self._end = end
        self._look_s = look_s
        self._last_good = clock.monotonic()
        self._stopped = threading.Event()

    async def run(self) -> None:
        """Until cancelled."""
        self._last_good = self._clock.monotonic()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        try:
            while True:
                if self._is_live():
                    self._last_good = self._clock.monotonic()
                await asyncio.sleep(self._look_s)
        finally:
            self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._look_s):
            if self._clock.monotonic() - self._last_good > self._patience_s:
                logger.critical("not live; ending, to be started anew", for_s=self._patience_s)
                self._end()
                return
