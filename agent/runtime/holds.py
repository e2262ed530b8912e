"""Which bursts are not yet durably accounted for: what stands between reading and acknowledging.

A burst may end in several models, several batches and several commits.  It is acknowledged, and its
mark stored, when the last of them is durable, and never before a burst that came earlier.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from agent.ports import Burst, Source


@dataclass(slots=True, eq=False)
class Hold:
    """One burst on its way.  `parts` are those that still work on it: its taker, and models."""

    source: Source
    burst: Burst
    parts: int = 1
    settled: bool = False


class Holds:
    """The open bursts of one stream, oldest first."""

    def __init__(self) -> None:
        self._open: deque[Hold] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, source: Source, burst: Burst) -> Hold:
        """A burst was taken in; it has one part until its taker lets that go."""
        hold = Hold(source, burst)
        self._open.append(hold)
        return hold

    def settled(self) -> Sequence[Hold]:
        """Take out the oldest bursts with no open part, up to the first that has one."""
        done = []
        while self._open and self._open[0].parts == 0:
            hold = self._open.popleft()
            hold.settled = True
            done.append(hold)
        return done
