"""Writes the receipt of each change of version, once there is something to write.

A receipt wants two things that come after the swap: some latency of the new version, and the memory
once the old one has been given back.  It waits for both, but not for ever, and never past the next
change.  It is written at the swap already, incomplete, for a power cut may come before they do; and
once more whenever a later phase leaves its evidence.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agent.core.names import ModelRef
from agent.core.rollout import Phase
from agent.ports import Clock
from agent.runtime.receipts import SwapTrace, last_of_each_phase
from agent.runtime.room import Room

RELEASE_S_MAX = 60.0  # for the old version to be let go; a long probation keeps it loaded
LOOK_S = 0.1


class Clerk:
    """One open trace at a time.  `receipt` is given each when it is to be written, or once more;
    what it gives back ends when that is durable.
    """

    def __init__(
        self,
        room: Room,
        clock: Clock,
        receipt: Callable[[SwapTrace], Awaitable[None]],
        receipt_s: float,
    ) -> None:
        self._room = room
        self._clock = clock
        self._receipt = receipt
        self._receipt_s = receipt_s
        self._seen: Mapping[str, Any] | None = None
        self._trace: SwapTrace | None = None
        self._last: SwapTrace | None = None  # finished, and still of the rollout in hand
        self._evidence: list[Mapping[str, Any]] = []  # of the current or the last rollout
        self._task: asyncio.Task[None] | None = None

    async def open(
        self, kind: str, old: ModelRef | None, new: ModelRef | None, why: str = ""
    ) -> SwapTrace:
        """A change is about to begin: what the stream is like until now is `before`."""
        self.finish()
        if kind == "swap":
            self._evidence = []
        elif self._seen is not None:  # a rollback belongs to the rollout that it broke off
            self.leave(self._seen)
        return await self._begin(kind, old, new, why)

    async def _begin(
        self, kind: str, old: ModelRef | None, new: ModelRef | None, why: str
    ) -> SwapTrace:
        trace = self._trace = SwapTrace(kind, old, new, why=why, evidence=[*self._evidence])
        self._last = None
        await self._room.watch(trace)
        return trace

    async def of(self, old: ModelRef | None, new: ModelRef) -> SwapTrace:
        """The open trace of the swap to `new`; begun now if a restart has lost it."""
        if self._trace is not None and self._trace.new == new and not self._trace.swapped:
            return self._trace
        self.finish()
        return await self._begin("swap", old, new, "")

    def see(self, evidence: Mapping[str, Any]) -> None:
        """What the phase in hand shows so far: for reports; as often as is liked."""
        self._seen = evidence

    def leave(self, evidence: Mapping[str, Any]) -> None:
        """What a phase has shown in the end, passed or not: that goes into the receipt."""
        self._seen = None
        self._evidence = [*last_of_each_phase([*self._evidence, evidence])]
        trace = self._trace or self._last
        if trace is not None:
            trace.evidence = self._evidence
            if trace.swapped:
                self._receipt(trace)

    def seen_in(self, phase: Phase) -> Mapping[str, Any] | None:
        """What was seen last in `phase`; at rest, by the watch.  None of one that broke off."""
        of = self._seen.get("phase") if self._seen is not None else ""
        return self._seen if of == ("watch" if phase is Phase.STEADY else phase) else None

    @property
    def trail(self) -> Sequence[Mapping[str, Any]]:
        """The last evidence of each phase that the rollout in hand, else the last one, has left."""
        return self._evidence

    def swapped(self, trace: SwapTrace) -> None:
        """The change has happened: write its receipt, and again when it can be written whole."""
        self._receipt(trace)
        self._task = asyncio.create_task(self._write(trace), name=f"receipt {trace.new}")

    async def keep(self, trace: SwapTrace) -> None:
        """What is known of `trace` is durable, if the disk lets it, before this returns."""
        saving = asyncio.ensure_future(self._receipt(trace))
        await asyncio.wait([saving])

    def finish(self) -> None:
        """Write what there is to write now: something else begins."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        trace, self._trace = self._trace, None
        if trace is not None and trace.swapped and not trace.finished:
            trace.rss_after = self._room.rss_bytes()
            trace.finished = True
            self._last = trace
            self._receipt(trace)

    async def _write(self, trace: SwapTrace) -> None:
        await asyncio.sleep(self._receipt_s)
        until = self._clock.monotonic() + RELEASE_S_MAX
        # what is let go is let go by the lane, which has nobody to tell but the room
        while self._clock.monotonic() < until and (  # noqa: ASYNC110
            self._room.holds(trace.old) or trace.rescoring
        ):
            await asyncio.sleep(LOOK_S)
        self._task = None
        self.finish()
