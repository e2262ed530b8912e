"""What a bad version said is taken back: the known good scores the same windows again.

The windows are read from the ring, oldest first and one batch at a time, so that the live readings
wait for no more than one run.  The new rows are numbered like any others and say which they
supersede.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np

from agent.core.errors import RefusedError
from agent.core.states import States
from agent.ports import Clock, Ring, Scored
from agent.runtime.batches import Again, Chunk, unrepeated
from agent.runtime.room import Room
from agent.runtime.seats import Seat


@dataclass(slots=True)
class Rescored:
    """How many rows were scored again, and how many could not be."""

    rows: int = 0
    refused: int = 0

    def document(self, kept: int) -> dict[str, int]:
        """For the receipt; `missing` are those of `kept` rows that the ring no longer had."""
        missing = max(0, kept - self.rows - self.refused)
        return {"rows": self.rows, "refused": self.refused, "missing": missing}


async def rescore(
    room: Room,
    ring: Ring,
    clock: Clock,
    *,
    release: int,
    since: int,
    good: Seat,
    states: States | None,
) -> Rescored:
    """Have `good` score again what `release` has scored from row `since` on, beginning with
    `states`, which are changed.
    """
    scoring, result = room.scoring, Rescored()
    kept = ring.read(scoring.stream, scoring.model, since)
    while (scored := await asyncio.to_thread(next, kept, None)) is not None:
        if scored.release != release:
            continue
        if not good.takes(scored.values):
            result.refused += scored.rows
            continue
        for part in _parts(scored, scoring.limits.rows_max, states):
            done: Future[int] = Future()
            done.set_running_or_notify_cancel()
            await room.on_lane(partial(_put, room, part, good, states, done, clock))
            try:
                result.rows += await asyncio.wrap_future(done)
            except RefusedError:
                result.refused += len(part.times)
    return result


def _put(  # noqa: PLR0917  # one call on the lane
    room: Room,
    part: Scored,
    good: Seat,
    states: States | None,
    done: "Future[int]",
    clock: Clock,
) -> None:
    keys = np.array([room.scoring.keys.index(name) for name in part.keys], np.int32)
    now = clock.monotonic()
    again = Again(part.release, part.seq, part.rows, done)
    chunk = Chunk(good, keys, part.times, part.values, 0, now, [], again=again, states=states)
    room.scoring.put(chunk, now)


def _parts(scored: Scored, rows_max: int, states: States | None) -> Iterator[Scored]:
    """Pieces that one run takes, of rows that follow one another, for their numbers do too: no
    sensor twice in one where there is state.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(scored.keys))}
    keys = np.array([numbers[name] for name in scored.keys], np.int32)
    start = 0
    while start < len(keys):
        some = keys[start : start + rows_max]
        stop = start + (len(some) if states is None else unrepeated(some))
        names, times = scored.keys[start:stop], scored.times[start:stop]
        values = scored.values[start:stop]
        yield Scored(scored.seq + start, stop - start, scored.release, names, times, values)
        start = stop
