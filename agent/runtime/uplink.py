"""Carries what the outbox holds to the broker: by priority, in order, a window at a time, at least
once.  What had to be given up is told before anything else.

Small batches of scores that wait together leave as one message: what a message costs us, the broker
and the consumer is the same for one row as for many.  One that the broker finds too large is cut
by rows until it fits, and those after it are no larger.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import structlog

from agent.core import scores
from agent.core.errors import RefusedError, UnavailableError
from agent.ports import Gap, Link, Outbox, Record

logger = structlog.get_logger(__name__)

WINDOW = 16  # records under way; also how many a consumer may see twice after a lost link
PAUSE_S = 0.5  # after a broker that says no for now
TOO_LARGE = 413  # what a broker's refusal is, as HTTP says it
SMALL_BYTES_MAX = 4096  # larger records gain little by leaving together

Numbered = Sequence[tuple[int, Record]]


class Uplink:
    """`letter` makes the message that tells of a gap.  `unheard` counts the score rows that the
    broker took and gave to nobody, since this process began.
    """

    def __init__(self, outbox: Outbox, link: Link, letter: Callable[[Gap], Record]) -> None:
        self.unheard = 0
        self._is_heard = True  # as far as the broker said of the last rows
        self._bytes_max = sys.maxsize  # that the broker takes of one message, as far as it has told
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
        messages = list(_together(await self._outbox.batch(WINDOW)))
        if len(messages) == 1:
            refusals = [await self._send_together(*messages[0])]
        else:
            refusals = await asyncio.gather(*(self._send_together(*one) for one in messages))
        numbers = [number for members, _ in messages for number, _ in members]
        taken, is_all = [], True
        for number, why in zip(numbers, [why for each in refusals for why in each], strict=True):
            if why:
                self._outbox.bury(number, why)
            elif why is None:
                is_all = False
            else:
                taken.append(number)
        if taken:
            self._outbox.accept(taken)
        return is_all

    async def _send_together(self, members: Numbered, payload: bytes) -> Sequence[str | None]:
        """For each of `members`, which `payload` is made of, what `_send` says."""
        if len(members) == 1:
            return [await self._send(members[0][1])]
        if len(payload) > self._bytes_max:
            return [await self._send(record) for _, record in members]
        try:
            heard = await self._link.publish(members[0][1].topic, payload)
        except RefusedError:  # of some of them it may be true
            return await asyncio.gather(*(self._send(record) for _, record in members))
        except UnavailableError:
            return [None] * len(members)
        self._note([record for _, record in members], heard=heard)
        return [""] * len(members)

    async def _send(self, record: Record) -> str | None:
        """Why the broker will never take it, empty if it has it; None: not this time."""
        try:
            heard = await self._publish(record.topic, record.payload)
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
        self._note([record], heard=heard)
        return ""

    async def _publish(self, topic: str, payload: bytes) -> bool:
        """As `Link.publish`, in as many messages as it takes."""
        heard = True
        for part in scores.split(payload, self._bytes_max):
            try:
                heard &= await self._link.publish(topic, part)
            except RefusedError as error:
                half = len(part) // 2
                if error.code != TOO_LARGE or len(scores.split(part, half)) == 1:
                    raise
                logger.info("messages are cut to what the broker takes", bytes_max=half)
                self._bytes_max = min(self._bytes_max, half)
                heard &= await self._publish(topic, part)
        return heard

    def _note(self, records: Sequence[Record], *, heard: bool) -> None:
        """The broker has `records`, and somebody else will, or not: said once a spell."""
        if not (rows := sum(record.rows for record in records)):
            return
        self.unheard += 0 if heard else rows
        if heard != self._is_heard:
            self._is_heard = heard
            topic, count = records[0].topic, self.unheard
            if heard:
                logger.info("somebody has subscribed to the scores", topic=topic, unheard=count)
            else:
                logger.warning("nobody has subscribed: scores go to nobody", topic=topic)


def _together(batch: Numbered) -> Iterator[tuple[Numbered, bytes]]:
    """The messages to send, and what each is made of."""

    def kind(pair: tuple[int, Record]) -> tuple[str, bool]:
        return pair[1].topic, len(pair[1].payload) <= SMALL_BYTES_MAX

    for (_, is_small), group in groupby(batch, kind):
        alike = list(group)
        if not is_small or len(alike) == 1:
            yield from (([pair], pair[1].payload) for pair in alike)
            continue
        at = 0
        for count, payload in scores.join([record.payload for _, record in alike]):
            yield alike[at : at + count], payload
            at += count
