"""What the ring keeps of one stream and model, as it stands in memory.  No I/O here."""

from collections import deque
from dataclasses import dataclass, field

from agent.adapters.files.ring_segment import Segment


@dataclass(slots=True)
class Shelf:
    """The segments of one stream and model, oldest first.

    Rows below `floor` are wanted no more; that some still lie here is nobody's loss.  `offset` is
    what to add to the rows given in this process to go on from those given before.
    """

    segments: deque[Segment] = field(default_factory=deque)
    floor: int = 0
    offset: int = 0
    is_joined: bool = False  # something was appended since it was opened
    dropped: int = 0

    @property
    def until(self) -> int:
        """How many rows the ring had been given with the last that is kept."""
        return self.segments[-1].until if self.segments else 0

    def weight(self) -> int:
        """What it takes of the disk, in bytes."""
        return sum(segment.weight() for segment in self.segments)

    def reaches(self, seq: int) -> bool:
        """Whether a batch from this number on is kept."""
        return bool(self.segments) and self.segments[-1].last >= seq

    def gave_up(self, segment: Segment) -> None:
        """Count what was still wanted of it."""
        left = segment.rows - segment.lost
        if segment.first < self.floor:
            left = max(0, min(left, segment.end - self.floor))
        self.dropped += left
