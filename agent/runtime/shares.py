"""What one model still owes of the bursts it was given: what makes a crash cost no repeat.

After a crash the source gives again every burst that was not accepted, whole.  So the scores of a
burst become durable together or not at all, and the account is stored with what to take back for
bursts whose scores are not in it.  Where several models are on a stream and one is ahead of the
others, it remembers by the ids of their messages which bursts it has done.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import orjson

from agent.ports import Burst
from agent.runtime.holds import Hold

AHEAD = "ahead"  # the member of a stored account


@dataclass(slots=True, eq=False)
class Share:
    """One burst in the hands of one model; without a hold, what silence alone has closed.

    `parts` are its pieces whose fate is still open, `answered` those of them that have an answer
    and wait for the others.
    """

    hold: Hold | None
    had: bytes = b""  # ids of the messages in it that the model had before a restart
    readings: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    parts: int = 1
    answered: int = 0
    settled: bool = False  # it and all before it have no open part

    @property
    def is_half(self) -> bool:
        """Whether some of it is answered and some is not."""
        return 0 < self.answered < self.parts

    def reject(self, reasons: Mapping[str, int]) -> None:
        """Note what was rejected as it came in."""
        for reason, n in reasons.items():
            if n:
                self.rejected[reason] = self.rejected.get(reason, 0) + n


@dataclass(slots=True)
class Shares:
    """The bursts of one model, oldest first.

    `ahead` are ids of messages that an earlier process did, and that the source is still to give
    again: a run of its oldest.
    """

    ahead: bytes = b""
    _open: deque[Share] = field(default_factory=deque)
    _done: deque[Hold] = field(default_factory=deque)  # by this model, not by all on the stream

    @classmethod
    def restored(cls, raw: bytes) -> Self:
        """From an account as it was stored."""
        return cls(bytes.fromhex(orjson.loads(raw)[AHEAD]))

    def open(self, hold: Hold | None, had: bytes = b"") -> Share:
        """A burst was given; the giver has a part of it until it lets that go."""
        share = Share(hold, had)
        if hold is not None:
            hold.parts += 1
        self._open.append(share)
        return share

    def had(self, burst: Burst) -> int:
        """How many of the first messages of `burst` were done before a restart: asked once."""
        if not self.ahead or not burst.ids:
            return 0
        size = len(burst.ids) // len(burst.payloads)
        same = 0
        while same < len(burst.payloads) and self.ahead.startswith(
            burst.ids[same * size : (same + 1) * size], same * size
        ):
            same += 1
        # The first message that is new is the end of what comes again.
        self.ahead = self.ahead[same * size :] if same == len(burst.payloads) else b""
        return same

    def settle(self) -> None:
        """Let go of the oldest that have no open part."""
        while self._open and self._open[0].parts == 0:
            share = self._open.popleft()
            share.settled = True
            if share.hold is not None:
                share.hold.parts -= 1
                self._done.append(share.hold)

    def forget(self) -> bool:
        """Forget those that the whole stream has done; whether there were any."""
        before = len(self._done)
        while self._done and self._done[0].settled:
            self._done.popleft()
        return len(self._done) < before

    def undone(self) -> tuple[int, dict[str, int]]:
        """Readings, and those rejected by reason, that were counted and will come again."""
        total = Share(self._open[0].hold) if self._open else None
        if total is None:
            return 0, {}
        for share in self._open:
            total.readings += share.readings
            total.reject(share.rejected)
        return total.readings, total.rejected

    def done(self) -> bytes:
        """Ids of the messages that the source may give again and that this model has done."""
        bursts = [hold.burst.ids for hold in self._done]
        return b"".join([*bursts, *(share.had for share in self._open), self.ahead])
