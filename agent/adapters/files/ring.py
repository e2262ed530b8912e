"""The ring: what was scored lately, so that the known good can score it again.

The lane hands over references and goes on; one thread of the ring's own packs and writes them, a
few times a second, into the files that `ring_shelves` keeps bounded.  Nothing is synced.  A process
that is killed loses what it appended in its last `GATHER_S`; a power cut loses what the system had
not written back, commonly the last half minute.  Either is seen when the numbers go on behind the
gap, and is counted.  What is worth more than that is in the outbox.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from agent.adapters.files.ring_record import Given
from agent.adapters.files.ring_segment import Pair
from agent.adapters.files.ring_shelves import SEGMENT_BYTES_MAX, Shelves
from agent.ports import Scored

GATHER_S = 0.05  # that a batch waits for others to be written with
REST_S = 1.0  # after the disk said no
READ_S_MAX = 10.0  # that a reader waits for what was appended before; then it takes what is there
CLOSE_S_MAX = 5.0
QUEUE_BYTES_MAX = 8 * 2**20  # on their way to the disk; no batch may be larger
SPARE_BYTES = 8 * 2**20  # of the disk, left to what is worth more
KEY_BYTES = 16  # of a row, beside its numbers, as the queue is measured
BATCH_BYTES = 256

# keep this, with the rows before it; or do that, when all before is done
_Order = tuple[Pair, Scored, int] | Callable[[], None]

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Tally:
    """What came in of one stream and model: the first number, rows, and rows without room."""

    first: int
    rows: int = 0
    refused: int = 0


class DiskRing:
    """The `Ring` port over `folder`, of at most `bytes_max` bytes, blocks of the disk taken whole.

    All streams and models share it: whoever has most gives up first, its oldest part.  When the
    disk is full it gives up more, a part each `rest_s`, and keeps `spare_bytes` free for others.
    The folder is its own; whoever else writes there loses what it wrote.  Two on one folder harm
    each other: it is opened after the database, which keeps a second agent out.
    """

    def __init__(
        self,
        folder: Path,
        bytes_max: int,
        *,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        spare_bytes: int = SPARE_BYTES,
        rest_s: float = REST_S,
    ) -> None:
        self._shelves = Shelves(
            folder,
            bytes_max,
            spare_bytes=spare_bytes,
            file_bytes_max=2 * queue_bytes_max + SEGMENT_BYTES_MAX,
        )
        self._queue_bytes_max = queue_bytes_max
        self._rest_s = rest_s
        self._wake = threading.Condition()
        self._orders: list[_Order] = []
        self._queued_bytes = 0
        self._tallies: dict[Pair, _Tally] = {}
        self._rests_until = 0.0
        self._is_urgent = self._closing = False
        self._thread = threading.Thread(target=self._work, name="ring", daemon=True)
        self._thread.start()

    # ---- the lane's side ----

    def append(self, stream: str, model: str, scored: Scored) -> None:
        """Keep it.  Never waits for the disk, never raises; what cannot be kept is counted.

        `scored` and its arrays belong to the ring from here on: nobody may change them.
        """
        pair = (stream, model)
        size = _size(scored)
        with self._wake:
            tally = self._tallies.get(pair)
            if tally is None:
                tally = self._tallies[pair] = _Tally(scored.seq)
            before = tally.rows
            tally.rows += scored.rows
            if self._closing or self._queued_bytes + size > self._queue_bytes_max:
                tally.refused += scored.rows
                return
            self._queued_bytes += size
            self._orders.append((pair, scored, before))
            if len(self._orders) == 1:
                self._wake.notify()
            elif self._queued_bytes * 2 > self._queue_bytes_max and not self._is_urgent:
                self._is_urgent = True
                self._wake.notify()

    def begin(self, stream: str, model: str, seq: int) -> None:
        """In this process the numbers go on at `seq`.  Returns at once."""
        self._order(partial(self._shelves.join, (stream, model), seq))

    def forget(self, stream: str, model: str, below: int) -> None:
        """Rows numbered below this are wanted no more.  Returns at once."""
        self._order(partial(self._shelves.forget, (stream, model), below))

    def _order(self, order: Callable[[], None]) -> None:
        with self._wake:
            if not self._closing:
                self._orders.append(order)
                self._wake.notify()

    def dropped(self, stream: str, model: str) -> int:
        """Rows given up since the start, for want of room, damage or a slow disk; and those that
        were missing then between what is kept and what came first.
        """
        pair = (stream, model)
        tally = self._tallies.get(pair)
        return (tally.refused if tally else 0) + self._shelves.dropped(pair)

    # ---- not the lane's ----

    def read(self, stream: str, model: str, seq: int) -> Iterator[Scored]:
        """Oldest first, all kept with rows at or after `seq`.  Waits for what was appended before;
        where the disk does not answer, no longer than `READ_S_MAX`.
        """
        arrived = threading.Event()
        with self._wake:
            if not self._closing:
                self._orders.append(arrived.set)
                self._is_urgent = True
                self._wake.notify()
        if self._closing:
            self._thread.join(READ_S_MAX)
        elif not arrived.wait(READ_S_MAX):
            logger.warning("ring read without what is still on its way", stream=stream, model=model)
        return self._shelves.read((stream, model), seq)

    def bytes(self) -> int:
        """What it takes of the disk."""
        return self._shelves.bytes

    def close(self) -> None:
        """Write what was appended; a disk that does not answer is not waited for.  Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(CLOSE_S_MAX)

    # ---- the ring's thread ----

    def _work(self) -> None:
        try:
            self._shelves.open()
        except OSError as error:
            self._rest(error)
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._orders or self._closing)
                self._wake.wait_for(lambda: self._is_urgent or self._closing, GATHER_S)
                orders, self._orders = self._orders, []
                self._is_urgent = False
                if not orders:
                    return
            done = self._carry_out(orders)
            with self._wake:
                self._queued_bytes -= done

    def _carry_out(self, orders: list[_Order]) -> int:
        """Do what was asked for; the bytes that leave the queue."""
        done = 0
        waiting: dict[Pair, list[Given]] = {}  # each in its order; they do not touch each other
        for order in orders:
            if callable(order):
                self._keep(waiting)
                order()
            else:
                pair, scored, before = order
                waiting.setdefault(pair, []).append(Given(scored, before))
                done += _size(scored)
        self._keep(waiting)
        return done

    def _keep(self, waiting: dict[Pair, list[Given]]) -> None:
        for pair, batches in waiting.items():
            first = self._tallies[pair].first
            if time.monotonic() < self._rests_until:
                self._shelves.skip(pair, batches, first)
                continue
            try:
                self._shelves.keep(pair, batches, first)
            except OSError as error:
                self._rest(error)
        waiting.clear()

    def _rest(self, error: OSError) -> None:
        logger.warning("ring cannot be written", why=str(error), rest_s=self._rest_s)
        self._rests_until = time.monotonic() + self._rest_s


def _size(scored: Scored) -> int:
    return BATCH_BYTES + scored.values.nbytes + len(scored.keys) * KEY_BYTES
