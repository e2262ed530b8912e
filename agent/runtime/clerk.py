"""Writes the receipt of each change of version, once there is something to write.

A receipt wants two things that come after the swap: some latency of the new version, and the memory
once the old one has been given back.  It waits for both, but not for ever, and never past the next
change.
"""

import asyncio
from collections.abc import Callable

from agent.core.names import ModelRef
from agent.ports import Clock
from agent.runtime.receipts import SwapTrace
from agent.runtime.room import Room

RELEASE_S_MAX = 60.0  # for the old version to be let go; a long probation keeps it loaded
LOOK_S = 0.1


class Clerk:
    """One open trace at a time.  `receipt` is given each when it is finished."""

    def __init__(
        self, room: Room, clock: Clock, receipt: Callable[[SwapTrace], None], receipt_s: float
    ) -> None:
        self._room = room
        self._clock = clock
        self._receipt = receipt
        self._receipt_s = receipt_s
        self._trace: SwapTrace | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(
        self, kind: str, old: ModelRef | None, new: ModelRef | None, why: str = ""
    ) -> SwapTrace:
        """A change is about to begin: what the stream is like until now is `before`."""
        self.finish()
        trace = self._trace = SwapTrace(kind, old, new, why=why)
        await self._room.watch(trace)
        return trace

    async def of(self, old: ModelRef | None, new: ModelRef) -> SwapTrace:
        """The open trace of the swap to `new`; begun now if a restart has lost it."""
        if self._trace is not None and self._trace.new == new and not self._trace.swapped:
            return self._trace
        return await self.open("swap", old, new)

    def swapped(self, trace: SwapTrace) -> None:
        """The change has happened: write its receipt when it can be written."""
        self._task = asyncio.create_task(self._write(trace), name=f"receipt {trace.new}")

    def finish(self) -> None:
        """Write what there is to write now: something else begins."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        trace, self._trace = self._trace, None
        if trace is not None and trace.swapped and not trace.finished:
            trace.rss_after = self._room.rss_bytes()
            trace.finished = True
            self._receipt(trace)

    async def _write(self, trace: SwapTrace) -> None:
        await asyncio.sleep(self._receipt_s)
        until = self._clock.monotonic() + RELEASE_S_MAX
        # what is let go is let go by the lane, which has nobody to tell but the room
        while self._room.holds(trace.old) and self._clock.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        self._task = None
        self.finish()
