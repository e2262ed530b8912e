"""What a version on trial has scored so far, so that it can be taken back.

From the moment it answers for anybody, its batches are kept in the ring, and where they begin is
kept in the journal, with the states of the sensors at that moment.  Once it has passed they are of
no interest, until it is doubted again.

How far it has been taken back is in the account, stored with the rows that do it; the states of
then are noted beside it, now and again, so that a death sends the known good back to there only.
"""

import asyncio
import base64
import json
import math
from typing import Any, NamedTuple

import numpy as np
import structlog

from agent.core.errors import RefusedError, UnavailableError
from agent.core.names import ModelRef
from agent.core.states import States
from agent.ports import Clock, Journal, Ring
from agent.runtime.accounts import Rescored
from agent.runtime.beside import Keep
from agent.runtime.rescoring import Then, rescore
from agent.runtime.room import Room
from agent.runtime.seats import Seat

LOOK_S = 0.05
EVERYTHING = 2**62  # no row has so high a number
STATES_BYTES_MAX = 4 * 2**20  # of more than that the past begins with none
NOTE_S = 1.0  # between two notes of states, while the past is scored
NOTE_BYTES_S = 256 * 1024  # and no more than so much is written for them

logger = structlog.get_logger(__name__)


class _Began(NamedTuple):
    """An instant: the next row's number, how many rows of versions on trial there had been, and
    what was carried of which sensors.
    """

    seq: int
    tried: int
    names: list[str]
    states: bytes = b""

    def document(self, ref: ModelRef) -> dict[str, Any]:
        """As it is kept; of `ref`, which is on trial from then on."""
        carried = {"keys": self.names, "states": base64.b64encode(self.states).decode()}
        there = {"digest": ref.digest, "seq": self.seq, "tried": self.tried}
        return there | (carried if self.states else {})

    @classmethod
    def read(cls, told: dict[str, Any]) -> "_Began":
        """The inverse."""
        states = base64.b64decode(told.get("states", ""))
        return cls(int(told["seq"]), int(told.get("tried", 0)), told.get("keys", []), states)


_Instant = tuple[_Began, States | None]


class _Noting:
    """When the states of the past are noted again: what is large is noted less often."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = -math.inf

    @property
    def is_due(self) -> bool:
        return self._clock.monotonic() >= self._due

    def noted(self, size: int) -> None:
        """So many bytes were written."""
        self._due = self._clock.monotonic() + max(NOTE_S, size / NOTE_BYTES_S)


class Past:
    """Of one model."""

    def __init__(self, room: Room, ring: Ring, journal: Journal, clock: Clock) -> None:
        """Before anything is scored."""
        self._room = room
        self._ring = ring
        self._journal = journal
        self._clock = clock
        self._beginning = asyncio.Lock()
        self.states_bytes_max = STATES_BYTES_MAX
        self._document = f"trial:{room.scoring.model}"
        self._notes = f"again:{room.scoring.model}"
        ring.begin(room.scoring.stream, room.scoring.model, room.scoring.account.next_seq)

    async def begin(self, seat: Seat) -> None:
        """`seat` is about to answer, or does: whatever it says may have to be taken back; and no
        more what another has said that was on trial before.
        """
        async with self._beginning:
            await self._begin(seat)

    async def _begin(self, seat: Seat) -> None:
        scoring = self._room.scoring
        began = await self._began(seat.ref)

        def keep() -> tuple[bool, _Instant]:
            beside, active = scoring.beside, scoring.slot.seat
            account = scoring.account
            is_new = began is None or account.rescored is not None  # taken back, and tried again
            # the journal may be durable where the rows that were numbered before it are not
            is_new = is_new or (began is not None and account.next_seq < began.seq)
            if beside.keep is None or beside.keep.trial is not seat:
                beside.keep = Keep(
                    seat, lambda scored: self._ring.append(scoring.stream, scoring.model, scored)
                )
            return is_new, self._here(active if is_new else None)

        is_new, (here, states) = await self._room.on_lane(keep)
        if is_new:
            await self._note(seat.ref, here, states)
            self._ring.forget(scoring.stream, scoring.model, here.seq)
            if await self._room.on_lane(self._forget_rescored):
                await asyncio.to_thread(self._journal.drop_documents, [self._notes])

    def _forget_rescored(self) -> bool:
        """Once where another trial begins is durable; whether there was something to forget."""
        scoring = self._room.scoring
        rescored, scoring.account.rescored = scoring.account.rescored, None
        scoring.dirty = scoring.dirty or rescored is not None
        return rescored is not None

    async def stands(self, seat: Seat, *, forget: bool = False) -> None:
        """What `seat` has said so far stands, and with it what it carries; `forget` that it could
        be taken back at all.
        """
        scoring = self._room.scoring

        def now() -> _Instant:
            if forget:
                scoring.beside.keep = None
            return self._here(None if forget else seat)

        here, states = await self._room.on_lane(now)
        await self._note(seat.ref, here, states)
        self._ring.forget(scoring.stream, scoring.model, here.seq)

    async def score_again(self, bad: ModelRef, good: Seat | None) -> dict[str, int] | None:
        """Have `good` score what `bad` has said; what became of it, for the receipt.

        Once more, it goes on where it was: what was kept is forgotten when there is another version
        to keep.
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
        far = await self._room.on_lane(lambda: self._far(began))
        then, noting = await self._then(bad, good, began, far), _Noting(self._clock)

        async def note(states: States) -> None:
            if noting.is_due:
                names = await self._room.on_lane(lambda: list(scoring.keys.names))
                here = _Began(far.since, 0, names), (far.seq, far.at)
                noting.noted(await self._note_states(bad, good, *here, states))

        await rescore(
            self._room,
            self._ring,
            self._clock,
            release=bad.release,
            far=far,
            then=then,
            note=note,
        )
        return far.document(ended.tried - began.tried)

    def _far(self, began: _Began) -> Rescored:
        account = self._room.scoring.account
        if account.rescored is None or account.rescored.since != began.seq:
            account.rescored = Rescored(began.seq)
        return account.rescored

    async def _then(self, bad: ModelRef, good: Seat, began: _Began, far: Rescored) -> Then:
        """Where `good` was with the past, as far as that was noted; else where the past begins."""
        place = (-1, 0)
        raw = await asyncio.to_thread(self._journal.load_document, self._notes)
        if raw and far.seq >= 0:
            told = json.loads(raw)
            noted, to = _Began.read(told), (int(told["to"][0]), int(told["to"][1]))
            whose = (told["digest"], told["good"], noted.seq)
            if whose == (bad.digest, good.ref.digest, began.seq) and to <= (far.seq, far.at):
                began, place = noted, to
        states = await self._room.on_lane(lambda: self._as_then(good, began))
        return Then(good=good, states=states, place=place)

    async def _note_states(
        self, bad: ModelRef, good: Seat, here: _Began, to: tuple[int, int], states: States
    ) -> int:
        """`states` are those after `to`, the rows before which are on their way to be durable."""
        raw = states.snapshot()
        if len(raw) <= self.states_bytes_max:
            body = here._replace(states=raw).document(bad) | {"good": good.ref.digest, "to": to}
            try:
                await asyncio.to_thread(
                    self._journal.save_document, self._notes, json.dumps(body).encode()
                )
            except UnavailableError as error:  # then a death costs more
                logger.warning("states of the past not noted", why=str(error))
        return len(raw)

    async def end(self) -> None:
        """The model is retired: nothing it has said will be taken back."""
        scoring = self._room.scoring
        await self._room.on_lane(self._stop)
        await asyncio.to_thread(self._journal.drop_documents, [self._document, self._notes])
        self._ring.forget(scoring.stream, scoring.model, EVERYTHING)

    def _stop(self) -> _Began:
        self._room.scoring.beside.keep = None
        return self._here(None)[0]

    def _here(self, carries: Seat | None) -> _Instant:
        """This instant, and a copy of the states that `carries` has."""
        account, keys = self._room.scoring.account, self._room.scoring.keys
        states = None if carries is None or carries.states is None else carries.states.copy()
        names = [] if states is None else list(keys.names)
        return _Began(account.next_seq, account.tried, names), states

    def _as_then(self, good: Seat, began: _Began) -> States | None:
        """What `good` begins the past with: never the states of the live readings."""
        if good.states is None:
            return None
        then = good.states.blank()
        if not began.states:
            return then
        try:
            then.restore(began.states)
        except RefusedError as error:  # they are another version's, which it cannot read
            logger.warning("the past is scored from blank states", why=str(error))
            return good.states.blank()
        keys = self._room.scoring.keys
        return then.renumbered(np.array([keys.index(name) for name in began.names], np.int32))

    async def _began(self, ref: ModelRef) -> _Began | None:
        raw = await asyncio.to_thread(self._journal.load_document, self._document)
        told = json.loads(raw) if raw else {}
        return _Began.read(told) if told.get("digest") == ref.digest else None

    async def _note(self, ref: ModelRef, began: _Began, states: States | None) -> None:
        def save() -> None:
            carried = b"" if states is None else states.snapshot()
            if len(carried) > self.states_bytes_max:
                logger.warning("states too large to be kept for the past", bytes=len(carried))
                carried = b""
            body = began._replace(states=carried).document(ref)
            self._journal.save_document(self._document, json.dumps(body).encode())

        await asyncio.to_thread(save)
