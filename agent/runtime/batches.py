"""Rows waiting for a batch: what one block gave, cut and joined into what one run takes."""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.core.scores import ScoreColumns
from agent.core.states import States
from agent.runtime.accounts import Rescored
from agent.runtime.canary import Canary
from agent.runtime.seats import Seat
from agent.runtime.shares import Share


@dataclass(frozen=True, slots=True)
class Again:
    """Which score rows are superseded: `rows` rows from `seq` on, that `release` gave in a batch
    numbered `batch`; `far` is told, and stored with the new ones.

    `done` is set, on the lane's thread, with the number of new rows.
    """

    release: int
    seq: int
    rows: int
    done: Future[int]
    batch: int
    far: Rescored


@dataclass(slots=True, eq=False)
class Chunk:
    """Windows cut for one seat.  keys int32 [w], times float64 [w], values [w, F] or [w, L, F].

    `readings` of the account are settled with its first row.  It leases its seat.
    """

    seat: Seat
    keys: NDArray[np.int32]
    times: NDArray[np.float64]
    values: NDArray[Any]
    readings: int
    arrived: float  # monotonic, of the oldest reading in it
    shares: list[Share]
    asked: Future[ScoreColumns] | None = None  # a question: answered, and not counted
    orphan: bool = False  # its version was taken away, and no other makes its windows
    again: Again | None = None  # scored again: its rows take the place of others
    states: States | None = None  # other than its seat's: as they were then

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(slots=True)
class Waiting:
    """Chunks in the order they came."""

    chunks: deque[Chunk] = field(default_factory=deque)
    rows: int = 0

    def add(self, chunk: Chunk) -> None:
        """The newest chunk."""
        self.chunks.append(chunk)
        self.rows += len(chunk)

    def remove(self, chunk: Chunk) -> None:
        """Give one up."""
        self.chunks.remove(chunk)
        self.rows -= len(chunk)

    def next(self, rows_max: int) -> tuple[Chunk, int]:
        """The oldest rows of one seat as one chunk of at most `rows_max`, and what leases change.

        A seat with state takes each sensor at most once a batch: what a row needs to know is what
        the row before it left.
        """
        seat = self.chunks[0].seat
        parts: list[Chunk] = []
        taken = 0
        split = False
        while self.chunks and self.chunks[0].seat is seat and taken < rows_max and not split:
            chunk = self.chunks[0]
            take = min(len(chunk), rows_max - taken)
            if seat.states is not None:
                keys = np.concatenate([*(part.keys for part in parts), chunk.keys[:take]])
                take = unrepeated(keys) - taken
                if take <= 0:
                    break
            split = take < len(chunk)
            parts.append(_head(chunk, take) if split else self.chunks.popleft())
            taken += take
        self.rows -= taken
        leases = (1 if split else 0) - (len(parts) - 1)
        return _joined(parts), leases


def unrepeated(keys: NDArray[np.int32]) -> int:
    """How many of the first keys come before any comes twice."""
    _, first = np.unique(keys, return_index=True)
    if len(first) == len(keys):
        return len(keys)
    new = np.zeros(len(keys), bool)
    new[first] = True
    return int(np.argmin(new))


def divided(chunk: Chunk, canary: Canary) -> list[Chunk]:
    """The rows of the canary's sensors apart from the others; the first part has the readings."""
    chosen = canary.chosen(chunk.keys)
    if not chosen.any():
        return [chunk]
    if chosen.all():
        chunk.seat = canary.seat
        return [chunk]
    windowed = chunk.seat.manifest.window is not None
    count = 0 if windowed else int(np.count_nonzero(chosen))
    rest = ~chosen
    return [
        Chunk(
            chunk.seat,
            chunk.keys[rest],
            chunk.times[rest],
            chunk.values[rest],
            chunk.readings - count,
            chunk.arrived,
            list(chunk.shares),
        ),
        Chunk(
            canary.seat,
            chunk.keys[chosen],
            chunk.times[chosen],
            chunk.values[chosen],
            count,
            chunk.arrived,
            list(chunk.shares),
        ),
    ]


def _head(chunk: Chunk, take: int) -> Chunk:
    """Cut the first rows off `chunk`; both parts now share its bursts."""
    windowed = chunk.seat.manifest.window is not None
    readings = chunk.readings if windowed else take
    head = Chunk(
        chunk.seat,
        chunk.keys[:take],
        chunk.times[:take],
        chunk.values[:take],
        readings,
        chunk.arrived,
        list(chunk.shares),
    )
    for share in chunk.shares:
        share.parts += 1
    chunk.readings -= readings
    chunk.keys, chunk.times = chunk.keys[take:], chunk.times[take:]
    chunk.values = chunk.values[take:]
    return head


def _joined(parts: list[Chunk]) -> Chunk:
    if len(parts) == 1:
        return parts[0]
    return Chunk(
        parts[0].seat,
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.values for part in parts]),
        sum(part.readings for part in parts),
        parts[0].arrived,
        [share for part in parts for share in part.shares],
    )
