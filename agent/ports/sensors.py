"""How readings come in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class Burst:
    """What one read of a source gave for one stream: payloads still encoded, in order.

    `topics` has one entry per payload (None for sources without topics).  `token` is handed back to
    `Source.accept` once every reading in the burst is durably accounted for.  `mark` is where the
    source stands after this burst; it is stored in the same transaction as the scores and given
    back to `Source.resume` at the next start, so that a restart neither repeats nor skips.  `ids`
    are what its messages are recognised by if the source gives them again, of one length and
    joined; empty where it cannot tell.  `oversize` messages were larger than the source takes in:
    they are counted, and their payloads are not there.
    """

    stream: str
    payloads: Sequence[bytes]
    arrived: float  # monotonic
    topics: Sequence[bytes] | None = None
    token: object = None
    mark: bytes | None = None
    ids: bytes = b""
    oversize: int = 0


class Source(Protocol):
    """Readings, pulled by the lane's thread and by no other; no call here waits.

    The lane selects on `fileno()` together with its workers, so that one thread reads, scores and
    writes with no queue between.
    """

    name: str

    def fileno(self) -> int | None:
        """What to select on for reading; None while there is nothing (not connected)."""
        ...

    def wants_write(self) -> bool:
        """Whether bytes wait to go out on `fileno()`."""
        ...

    def read(self, readings_max: int) -> Sequence[Burst]:
        """All that has come, up to about `readings_max` payloads; empty if nothing has."""
        ...

    def accept(self, tokens: Sequence[object]) -> None:
        """These bursts are durably accounted for: acknowledge them."""
        ...

    def resume(self, mark: bytes) -> None:
        """Before the first read: what was durably accounted for when this stream last stopped."""
        ...

    def tick(self, now: float) -> float:
        """Housekeeping (keep-alive, reconnect); returns the monotonic time of the next one."""
        ...

    def trouble(self) -> str:
        """Why no readings can come just now, in a sentence; empty if they can."""
        ...

    def close(self) -> None: ...
