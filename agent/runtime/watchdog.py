"""Ends the process when it is no longer live, so that whatever runs it starts it anew.

IoT Edge looks at no container health check: a module that hangs stays, unless it exits.  A thread
of its own, because what it guards against is that nothing else moves.  And a thread that has died
is missed by nobody, so its death is that of the process.
"""

import asyncio
import os
import threading
from collections.abc import Callable

import structlog

EXIT_STATUS = 70  # as sysexits.h calls an internal error
LOOK_S = 1.0

logger = structlog.get_logger(__name__)


def _exit() -> None:
    os._exit(EXIT_STATUS)  # an orderly end would wait for what hangs; the journal makes this safe


def end_with_any_thread() -> None:
    """From now on an exception that nobody in a thread has caught ends the process."""

    def ended(what: threading.ExceptHookArgs) -> None:
        name = what.thread.name if what.thread is not None else "?"
        logger.critical(
            "a thread has died; ending, to be started anew", thread=name, exc_info=what[:3]
        )
        _exit()

    threading.excepthook = ended


class Watchdog:
    """Calls `end` once the event loop, or `is_live`, has said nothing good for `patience_s`.

    Counted in looks and not by a clock: a machine that was suspended, or a process that was
    stopped, has not hung.
    """

    def __init__(
        self,
        patience_s: float,
        is_live: Callable[[], bool],
        *,
        end: Callable[[], None] = _exit,
        look_s: float = LOOK_S,
    ) -> None:
        self._patience_s = patience_s
        self._is_live = is_live
        self._end = end
        self._look_s = look_s
        self._good = True  # since the thread looked last
        self._stopped = threading.Event()

    async def run(self) -> None:
        """Until cancelled."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        try:
            while True:
                self._good = self._good or self._is_live()
                await asyncio.sleep(self._look_s)
        finally:
            self._stopped.set()

    def _watch(self) -> None:
        bad_s = 0.0
        while not self._stopped.wait(self._look_s):
            bad_s = 0.0 if self._good else bad_s + self._look_s
            self._good = False
            if bad_s > self._patience_s:
                logger.critical("not live; ending, to be started anew", for_s=self._patience_s)
                self._end()
                return
