"""Carries what the outbox holds to the broker: by priority, in order, a window at a time, at least
once.  What had to be given up is told before anything else.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from agent.core.errors import RefusedError, UnavailableError
from agent.ports import Gap, Link, Outbox, Record

logger = structlog.get_logger(__name__)

WINDOW = 16  # records under way; also how many a consumer may see twice after a lost link
PAUSE_S = 0.5  # after a broker that says no for now


class Uplink:
    """`letter` makes the message that tells of a gap."""

    def __init__(self, outbox: Outbox, link: Link, letter: Callable[[Gap], Record]) -> None:
        self._outbox = outbox
        self._link = link
        self._letter = letter

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._link.connected()
            gaps = self._outbox.gaps()
            if not await (self._tell(gaps) if gaps else self._carry()):
                await asyncio.sleep(PAUSE_S)

    async def _tell(self, gaps: Sequence[Gap]) -> bool:
        refusals = await asyncio.gather(*(self._send(self._letter(gap)) for gap in gaps))
        # Of a gap that the broker will not hear of nothing more can be said than is in its log.
        told = [gap for gap, why in zip(gaps, refusals, strict=True) if why is not None]
        self._outbox.told(told)
        return len(told) == len(gaps)

    async def _carry(self) -> bool:
        batch = await self._outbox.batch(0, WINDOW)
        refusals = await asyncio.gather(*(self._send(record) for _, record in batch))
        taken = []
        for (record_id, _), why in zip(batch, refusals, strict=True):
            if why:
                self._outbox.bury(record_id, why)
            elif why is not None:
                taken.append(record_id)
        if taken:
            self._outbox.accept(taken)
        return None not in refusals

    async def _send(self, record: Record) -> str | None:
        """Why the broker will never take it, empty if it has it; None: not this time."""
        try:
            await self._link.publish(record.topic, record.payload)
        except RefusedError as error:
            logger.error(  # noqa: TRY400  # its text says all
                "the broker will never take this record",
                topic=record.topic,
                bytes=len(record.payload),
                why=str(error),
            )
            return str(error) or "refused"
        except UnavailableError:
            return None
        return ""
