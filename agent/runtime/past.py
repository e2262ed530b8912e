"""What a version on trial has scored so far, so that it can be taken back.

From the moment it answers for anybody, its batches are kept in the ring, and where they begin is
kept in the journal.  Once it has passed they are of no interest, until it is doubted again.
"""

import asyncio
import json

from agent.core.names import ModelRef
from agent.ports import Clock, Journal, Ring
from agent.runtime.beside import Keep
from agent.runtime.rescoring import rescore
from agent.runtime.room import Room
from agent.runtime.seats import Seat

LOOK_S = 0.05
EVERYTHING = 2**62  # no row has so high a number


class Past:
    """Of one model."""

    def __init__(self, room: Room, ring: Ring, journal: Journal, clock: Clock) -> None:
        self._room = room
        self._ring = ring
        self._journal = journal
        self._clock = clock
        self._document = f"trial:{room.scoring.model}"

    async def begin(self, seat: Seat) -> None:
        """`seat` is about to answer: whatever it says may have to be taken back."""
        scoring = self._room.scoring
        is_new = await self._since(seat.ref) is None

        def keep() -> int:
            if is_new:
                self._count_anew()
            beside, active = scoring.beside, scoring.slot.seat
            if beside.keep is None or beside.keep.trial is not seat:
                beside.keep = Keep(
                    seat, lambda scored: self._ring.append(scoring.stream, scoring.model, scored)
                )
                if active is not None and active is not seat and active.states is not None:
                    active.states_then = active.states.copy()
            return scoring.account.next_seq

        seq = await self._room.on_lane(keep)
        if is_new:
            await self._note(seat.ref, seq)

    async def stands(self, seat: Seat, *, forget: bool = False) -> None:
        """What `seat` has said so far stands; `forget` that it could be taken back at all."""
        scoring = self._room.scoring

        def now() -> int:
            if forget:
                scoring.beside.keep = None
            self._count_anew()
            return scoring.account.next_seq

        seq = await self._room.on_lane(now)
        await self._note(seat.ref, seq)
        self._ring.forget(scoring.stream, scoring.model, seq)

    async def score_again(self, bad: ModelRef, good: Seat | None) -> dict[str, int] | None:
        """Have `good` score what `bad` has said; what became of it, for the receipt."""
        since = await self._since(bad)
        scoring = self._room.scoring
        # what it had answered goes out in its turn, behind what others have yet to answer
        while await self._room.on_lane(  # noqa: ASYNC110  # the lane tells nobody
            lambda: any(seat.ref == bad for seat in scoring.leased())
        ):
            await asyncio.sleep(LOOK_S)
        until, kept = await self._room.on_lane(self._stop)
        if since is None or good is None:
            return None
        result = await rescore(
            self._room, self._ring, self._clock, release=bad.release, since=since, good=good
        )
        self._ring.forget(scoring.stream, scoring.model, until)
        return result.document(kept)

    async def end(self) -> None:
        """The model is retired: nothing it has said will be taken back."""
        scoring = self._room.scoring
        await self._room.on_lane(self._stop)
        await asyncio.to_thread(self._journal.drop_documents, [self._document])
        self._ring.forget(scoring.stream, scoring.model, EVERYTHING)

    def _stop(self) -> tuple[int, int]:
        scoring = self._room.scoring
        scoring.beside.keep = None
        return scoring.account.next_seq, scoring.account.tried

    def _count_anew(self) -> None:
        self._room.scoring.account.tried = 0
        self._room.scoring.dirty = True

    async def _since(self, ref: ModelRef) -> int | None:
        raw = await asyncio.to_thread(self._journal.load_document, self._document)
        told = json.loads(raw) if raw else {}
        return int(told["seq"]) if told.get("digest") == ref.digest else None

    async def _note(self, ref: ModelRef, seq: int) -> None:
        raw = json.dumps({"digest": ref.digest, "seq": seq}).encode()
        await asyncio.to_thread(self._journal.save_document, self._document, raw)
