"""What a bad version said is taken back: the known good scores the same windows again.

The windows are read from the ring, oldest first and one batch at a time, so that the live readings
wait for no more than one run.  The new rows are numbered like any others and say which they
supersede.  How far it has come is stored with them, so that a death costs none of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from agent.core.errors import RefusedError
from agent.core.scores import ScoreColumns
from agent.core.states import States
from agent.ports import Clock, Ring, Scored
from agent.runtime.accounts import Rescored
from agent.runtime.batches import Again, Chunk, unrepeated
from agent.runtime.room import Room
from agent.runtime.seats import Seat

Place = tuple[int, int]  # as `seq` and `at` of `Rescored`


@dataclass(frozen=True, slots=True, kw_only=True)
class Then:
    """What `good` begins the past with: `states`, which are changed, as they were at `place`.  Rows
    from there on to what is done are run once more, for the states alone; None: it carries none.
    """

    good: Seat
    states: States | None
    place: Place


async def rescore(
    room: Room,
    ring: Ring,
    clock: Clock,
    *,
    release: int,
    far: Rescored,
    then: Then,
    note: Callable[[States], Awaitable[None]],
) -> None:
    """Score again what `release` has scored and `far` has not come to yet.

    `note` is given the states each time that `far` has moved on.
    """
    scoring, runs = room.scoring, _Runs(room, clock, then, far)
    done = (far.seq, far.at)
    known, heard = _Before(done if then.states is None else then.place), _Before(done)
    kept = ring.read(scoring.stream, scoring.model, max(far.since, known.seq))
    while (scored := await asyncio.to_thread(next, kept, None)) is not None:
        if scored.release != release:
            continue
        start, stop = known.rows_of(scored), heard.rows_of(scored)
        if not then.good.takes(scored.values):
            await runs.refuse(scored.seq, scored.rows - stop)
            continue
        for part in runs.parts(scored, start, stop):
            await runs.once_more(part)
        for part in runs.parts(scored, stop, scored.rows):
            await runs.again(part, scored.seq)
        if then.states is not None and stop < scored.rows:
            await note(then.states)


class _Before:
    """Which rows come before a place; to be asked of each batch in order."""

    def __init__(self, place: Place) -> None:
        self.seq, self._left = place

    def rows_of(self, scored: Scored) -> int:
        """How many of its first rows."""
        if scored.seq != self.seq:
            return scored.rows if scored.seq < self.seq else 0
        rows = min(self._left, scored.rows)
        self._left -= rows
        return rows


@dataclass(frozen=True, slots=True)
class _Runs:
    """One run at a time, out of turn."""

    room: Room
    clock: Clock
    then: Then
    far: Rescored

    async def again(self, part: Scored, batch: int) -> None:
        """Rows that take the place of `part`."""
        done: Future[int] = Future()
        done.set_running_or_notify_cancel()
        told = Again(part.release, part.seq, part.rows, done, batch, self.far)
        await self._put(part, again=told)
        try:
            await asyncio.wrap_future(done)
        except RefusedError:
            await self.refuse(batch, part.rows)

    async def once_more(self, part: Scored) -> None:
        """What it leaves in the states; nobody hears what it says."""
        asked: Future[ScoreColumns] = Future()
        asked.set_running_or_notify_cancel()
        await self._put(part, asked=asked)
        try:
            await asyncio.wrap_future(asked)
        except RefusedError:
            return  # as it was

    async def refuse(self, batch: int, rows: int) -> None:
        """They cannot be scored again."""

        def count() -> None:
            if rows:
                self.far.passed(batch, rows)
                self.far.refused += rows
                self.room.scoring.dirty = True

        await self.room.on_lane(count)

    async def _put(
        self,
        part: Scored,
        *,
        asked: Future[ScoreColumns] | None = None,
        again: Again | None = None,
    ) -> None:
        good, states = self.then.good, self.then.states

        def put() -> None:
            scoring = self.room.scoring
            keys = np.array([scoring.keys.index(name) for name in part.keys], np.int32)
            now = self.clock.monotonic()
            chunk = Chunk(good, keys, part.times, part.values, 0, now, [], asked, again=again)
            chunk.states = states
            scoring.put(chunk, now)

        await self.room.on_lane(put)

    def parts(self, scored: Scored, start: int, stop: int) -> Iterator[Scored]:
        """Pieces that one run takes, of the rows from `start` to `stop`, which follow one another,
        for their numbers do too: no sensor twice in one where there is state.
        """
        rows_max = self.room.scoring.limits.rows_max
        numbers = {name: i for i, name in enumerate(dict.fromkeys(scored.keys))}
        keys = np.array([numbers[name] for name in scored.keys], np.int32)
        while start < stop:
            some = keys[start : min(start + rows_max, stop)]
            rows = len(some) if self.then.states is None else unrepeated(some)
            end = start + rows
            names, times = scored.keys[start:end], scored.times[start:end]
            values = scored.values[start:end]
            yield Scored(scored.seq + start, rows, scored.release, names, times, values)
            start = end
