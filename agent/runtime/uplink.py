"""Carries what the outbox holds to the broker: in order, a window at a time, at least once."""

import asyncio

import structlog

from agent.core.errors import RefusedError, UnavailableError
from agent.ports import Link, Outbox, Record

logger = structlog.get_logger(__name__)

WINDOW = 16  # records under way; also how many a consumer may see twice after a lost link
PAUSE_S = 0.5  # after a broker that says no for now


class Uplink:
    """`dead_letters` counts records the broker will never take; they are dropped alone."""

    def __init__(self, outbox: Outbox, link: Link) -> None:
        self.dead_letters = 0
        self._outbox = outbox
        self._link = link

    async def run(self) -> None:
        """Until cancelled."""
        after = 0
        while True:
            await self._link.connected()
            batch = await self._outbox.batch(after, WINDOW)
            sent = await asyncio.gather(*(self._send(record) for _, record in batch))
            done = [record_id for (record_id, _), ok in zip(batch, sent, strict=True) if ok]
            self._outbox.accept(done)
            if all(sent):
                after = batch[-1][0]
            else:  # from the first that has not arrived; what arrived behind it is forgotten
                after = next(i for (i, _), ok in zip(batch, sent, strict=True) if not ok) - 1
                await asyncio.sleep(PAUSE_S)

    async def _send(self, record: Record) -> bool:
        try:
            await self._link.publish(record.topic, record.payload)
        except RefusedError as error:
            self.dead_letters += 1
            logger.error(  # noqa: TRY400  # its text says all
                "the broker will never take this record",
                topic=record.topic,
                bytes=len(record.payload),
                why=str(error),
            )
            return True
        except UnavailableError:
            return False
        return True
