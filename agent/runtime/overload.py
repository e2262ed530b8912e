"""More readings than a model can score: what the stream's `on_overload` says is done with them.

`block` leaves them with the source.  The others keep reading, and give up readings that are counted
as rejected (`overload`): `drop_oldest` those that have waited longest, `sample` all but every n-th
of each sensor, n rising with what waits.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import grown
from agent.core.blocks import Block
from agent.core.grouping import Groups
from agent.runtime.limits import ROWS_WAITING_MAX, Limits

if TYPE_CHECKING:
    from agent.runtime.scoring import Scoring

BATCHES_WAITING = 4  # past this there is more than can be scored
DOUBLINGS_MAX = 6  # of n; past that nothing is taken

REASON = "overload"
WHY = "there was more than could be scored; see `on_overload` of the stream"


class Overload:
    """Of one model on one stream; lane's thread only."""

    def __init__(self, limits: Limits) -> None:
        self._policy = limits.on_overload
        self._rows = BATCHES_WAITING * limits.rows_max
        self._seen: NDArray[np.int64] = np.zeros(0, np.int64)  # by sensor, while sampling

    def closes(self, waiting: int) -> bool:
        """Whether the stream must not be read while so many rows wait."""
        return self._policy == "block" and waiting >= ROWS_WAITING_MAX

    def thinned(self, block: Block, waiting: int) -> Block:
        """What is taken of `block` while so many rows wait."""
        doublings = waiting // self._rows
        if self._policy != "sample" or not doublings or not len(block):
            return block
        kept = self._every(block.keys, doublings)
        gone = len(block) - int(np.count_nonzero(kept))
        return replace(
            block,
            keys=block.keys[kept],
            times=block.times[kept],
            columns={name: column[kept] for name, column in block.columns.items()},
            rejected=block.rejected | {REASON: gone},
        )

    def _every(self, keys: NDArray[np.int32], doublings: int) -> NDArray[np.bool]:
        kept = np.zeros(len(keys), np.bool)
        if doublings <= DOUBLINGS_MAX:
            groups = Groups(keys)
            self._seen = grown(self._seen, int(keys.max()) + 1)
            number = groups.spread(self._seen[groups.unique]) + groups.ranks()
            self._seen[groups.unique] += groups.sizes
            kept[groups.order] = number % 2**doublings == 0
        return kept

    def relieve(self, scoring: "Scoring") -> None:
        """Give up what has waited longest, as long as enough is left."""
        waiting = scoring.waiting
        while (
            self._policy == "drop_oldest"
            and waiting.chunks
            and waiting.rows - len(waiting.chunks[0]) >= self._rows
        ):
            chunk = waiting.chunks[0]
            waiting.remove(chunk)
            for share in chunk.shares:
                share.reject({REASON: chunk.readings})
            scoring.mark(chunk, parts=-1, answered=0)
            scoring.give_up(chunk, REASON, WHY)
            scoring.slot.release(chunk.seat)
