"""What a version on trial has scored so far, so that it can be taken back.

From the moment it answers for anybody, its batches are kept in the ring, and where they begin is
kept in the journal.  Once it has passed they are of no interest, until it is doubted again.
"""

import asyncio
import json
from typing import NamedTuple

from agent.core.names import ModelRef
from agent.ports import Clock, Journal, Ring
from agent.runtime.beside import Keep
from agent.runtime.rescoring import rescore
from agent.runtime.room import Room
from agent.runtime.seats import Seat

LOOK_S = 0.05
EVERYTHING = 2**62  # no row has so high a number


class _Began(NamedTuple):
    """An instant: the next row's number, and how many rows of versions on trial there had been."""

    seq: int
    tried: int


class Past:
    """Of one model."""

    def __init__(self, room: Room, ring: Ring, journal: Journal, clock: Clock) -> None:
        """Before anything is scored."""
        self._room = room
        self._ring = ring
        self._journal = journal
        self._clock = clock
        self._document = f"trial:{room.scoring.model}"
        ring.begin(room.scoring.stream, room.scoring.model, room.scoring.account.next_seq)

    async def begin(self, seat: Seat) -> None:
        """`seat` is about to answer: whatever it says may have to be taken back."""
        scoring = self._room.scoring
        is_new = await self._began(seat.ref) is None

        def keep() -> _Began:
            beside, active = scoring.beside, scoring.slot.seat
            if beside.keep is None or beside.keep.trial is not seat:
                beside.keep = Keep(
                    seat, lambda scored: self._ring.append(scoring.stream, scoring.model, scored)
                )
                if active is not None and active is not seat and active.states is not None:
                    active.states_then = active.states.copy()
            return self._here()

        here = await self._room.on_lane(keep)
        if is_new:
            await self._note(seat.ref, here)
            self._ring.forget(scoring.stream, scoring.model, here.seq)

    async def stands(self, seat: Seat, *, forget: bool = False) -> None:
        """What `seat` has said so far stands; `forget` that it could be taken back at all."""
        scoring = self._room.scoring

        def now() -> _Began:
            if forget:
                scoring.beside.keep = None
            return self._here()

        here = await self._room.on_lane(now)
        await self._note(seat.ref, here)
        self._ring.forget(scoring.stream, scoring.model, here.seq)

    async def score_again(self, bad: ModelRef, good: Seat | None) -> dict[str, int] | None:
        """Have `good` score what `bad` has said; what became of it, for the receipt.

        Once more gives the same: what was kept is forgotten when there is another version to keep.
        """
        began = await self._began(bad)
        scoring = self._room.scoring
        # what it had answered goes out in its turn, behind what others have yet to answer
        while await self._room.on_lane(  # noqa: ASYNC110  # the lane tells nobody
            lambda: any(seat.ref == bad for seat in scoring.leased())
        ):
            await asyncio.sleep(LOOK_S)
        ended = await self._room.on_lane(self._stop)
        if began is None or good is None:
            return None
        result = await rescore(
            self._room, self._ring, self._clock, release=bad.release, since=began.seq, good=good
        )
        return result.document(ended.tried - began.tried)

    async def end(self) -> None:
        """The model is retired: nothing it has said will be taken back."""
        scoring = self._room.scoring
        await self._room.on_lane(self._stop)
        await asyncio.to_thread(self._journal.drop_documents, [self._document])
        self._ring.forget(scoring.stream, scoring.model, EVERYTHING)

    def _stop(self) -> _Began:
        self._room.scoring.beside.keep = None
        return self._here()

    def _here(self) -> _Began:
        account = self._room.scoring.account
        return _Began(account.next_seq, account.tried)

    async def _began(self, ref: ModelRef) -> _Began | None:
        raw = await asyncio.to_thread(self._journal.load_document, self._document)
        told = json.loads(raw) if raw else {}
        if told.get("digest") != ref.digest:
            return None
        return _Began(int(told["seq"]), int(told.get("tried", 0)))

    async def _note(self, ref: ModelRef, began: _Began) -> None:
        told = {"digest": ref.digest, "seq": began.seq, "tried": began.tried}
        raw = json.dumps(told).encode()
        await asyncio.to_thread(self._journal.save_document, self._document, raw)
