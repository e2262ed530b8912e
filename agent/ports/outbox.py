"""What has been produced and not yet been sent, durable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """One message waiting to go out: a batch of score rows, or an event."""

    topic: str
    payload: bytes
    rows: int = 0
    priority: int = 1  # lower goes first; 0 is for events
    stream: str = ""
    model: str = ""
    first_seq: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """Score rows that had to be given up: exactly `rows` of those numbered first to last.

    `reason` is `full` (no room), `expired` (too old), `refused` (the broker will never take them)
    or `damaged` (by the disk).  Events that were given up have no stream, and are counted in
    `rows`; so are records of which the disk has left nobody knows what they held: no model, either.
    """

    id: int  # stays the same when a gap is told twice
    stream: str
    model: str
    reason: str
    first_seq: int
    last_seq: int
    rows: int


@dataclass(frozen=True, slots=True)
class Carried:
    """One more row of what a model carries from reading to reading.

    Rows are numbered from 0; number 0 replaces all rows before, and with no body leaves none.
    """

    number: int
    body: bytes


class Trouble(NamedTuple):
    """What a disk has said no to: how often in this life, and why of late, for people."""

    errors: int = 0
    why: str = ""  # empty: it takes and gives what it should


@dataclass(slots=True)
class Entry:
    """What one step of the lane adds, all of it or nothing: records, accounts, marks, and more.

    accounts  (stream, model) -> the whole account as JSON bytes, replacing the last
    marks     source mark by stream, see `Burst.mark`
    carried   (stream, model) -> open windows and state, a row more or all anew
    """

    records: Sequence[Record] = ()
    accounts: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    marks: Mapping[str, bytes] = field(default_factory=dict)
    carried: Mapping[tuple[str, str], Carried] = field(default_factory=dict)


class Outbox(Protocol):
    """Store and forward.  An entry is accepted when it is durable; until then it is nobody's."""

    def add(self, entry: Entry) -> int:
        """Queue `entry` for the next commit; returns its ticket (rising).  Never waits for disk."""
        ...

    def committed(self) -> int:
        """The highest ticket that is durable."""
        ...

    def fileno(self) -> int:
        """Readable after a commit; `committed()` makes it quiet again."""
        ...

    def accounts(self) -> Mapping[tuple[str, str], bytes]: ...
    def marks(self) -> Mapping[str, bytes]: ...
    def carried(self, stream: str, model: str) -> Sequence[tuple[int, bytes]]:
        """The rows of `Entry.carried` that are there, by number."""
        ...

    def epoch(self) -> int:
        """Rises only if the store was lost."""
        ...

    async def batch(self, records_max: int) -> Sequence[tuple[int, Record]]:
        """The next durable records to send, lowest priority number first and in order within one;
        what was accepted is not among them.  Waits until there is at least one; gives none, at
        once, while there are gaps to be told first.
        """
        ...

    def accept(self, ids: Sequence[int]) -> None:
        """The far side has these: forget them."""
        ...

    def bury(self, record_id: int, why: str) -> None:
        """The far side will never take this one: keep it apart, and tell its rows as a gap."""
        ...

    def gaps(self) -> Sequence[Gap]:
        """What was given up and not yet told, oldest first; some of it, if it is much."""
        ...

    def told(self, gaps: Sequence[Gap]) -> None:
        """The far side knows of these."""
        ...

    def tidy(self) -> None:
        """Housekeeping, about once a second: give up what is too old.  Never waits."""
        ...

    def depth(self) -> Mapping[str, int]:
        """records, bytes, gaps (rows that were given up), dead_letters (records refused)."""
        ...

    def trouble(self) -> Trouble:
        """Whether what is added can be made durable, and what waits can be read."""
        ...
