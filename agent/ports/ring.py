"""What was scored lately, so that it can be scored again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.ports.engine import Array


@dataclass(frozen=True, slots=True)
class Scored:
    """One batch as it was scored: what it takes to score it again.

    seq     number of its first score row
    rows    score rows it gave
    release of the version that scored it
    keys    the sensor of each row
    times   float64 [w], event time
    values  [w, F] or [w, L, F], float32 or float64: what the assembler takes.  Not to be changed
            after it was given away.
    """

    seq: int
    rows: int
    release: int
    keys: Sequence[str]
    times: Array
    values: Array


class Ring(Protocol):
    """The last batches of each stream and model, on disk, in bounded room.  Not durable: a power
    cut loses the tail, which is counted as soon as the numbers go on behind it.

    Only the live stream is appended, in the order of its numbers, never what is scored again: a
    batch numbered below what is kept tells that the numbers began again there (scores that did not
    become durable, a lost store), and what was kept from there on goes, uncounted.
    """

    def begin(self, stream: str, model: str, seq: int) -> None:
        """After a start, before the first `append`: the numbers go on at `seq`.  What an earlier
        process has left from there on never became durable where it counts, and goes, uncounted.
        """
        ...

    def append(self, stream: str, model: str, scored: Scored) -> None:
        """Keep it.  Never waits for the disk and never raises; what cannot be kept is counted."""
        ...

    def read(self, stream: str, model: str, seq: int) -> Iterator[Scored]:
        """Oldest first, all kept with rows at or after `seq`; everything appended before the call.

        Not on the lane's thread.  What is given up before it was read is left out.
        """
        ...

    def forget(self, stream: str, model: str, below: int) -> None:
        """Rows below this number are wanted no more."""
        ...

    def dropped(self, stream: str, model: str) -> int:
        """Rows given up since the start: no room, damage, or a disk too slow; and those that were
        missing then.  Rises as it is found out.
        """
        ...

    def bytes(self) -> int: ...
    def close(self) -> None: ...
