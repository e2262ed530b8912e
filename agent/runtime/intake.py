"""One stream: bursts from its source, decoded once, handed to every model that listens.

Runs on the lane's thread.  Counts what came in before any model saw it.
"""

from dataclasses import dataclass, field

from agent.core.decoding import Decoder
from agent.core.health import StreamHealth
from agent.core.streams import StreamSpec
from agent.core.survey import Survey
from agent.ports import Burst, Source
from agent.runtime.holds import Hold, Holds
from agent.runtime.scoring import Scoring


@dataclass(slots=True)
class Intake:
    """A stream and the scorings on it, by model name."""

    spec: StreamSpec
    decoder: Decoder
    rows_max: int = 1024  # of a batch
    wait_s: float = 0.0  # that a batch may wait to grow
    redelivered: bool = True  # what was not acknowledged comes again after a restart
    on_overload: str = "block"
    scorings: dict[str, Scoring] = field(default_factory=dict)
    holds: Holds = field(default_factory=Holds)
    readings: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    last_reading: float = 0.0  # wall seconds; 0: never
    paused: bool = False
    survey: Survey = field(init=False)

    def __post_init__(self) -> None:
        """What the stream carries is watched from the first reading on."""
        self.survey = Survey(self.spec, lambda: self.decoder.header)

    def take(self, source: Source, burst: Burst, now: float, wall: float) -> None:
        """Decode a burst and give every scoring its block."""
        hold = self.holds.open(source, burst)
        block = self.decoder.decode(
            burst.payloads, burst.topics, burst.arrived, wall, oversize=burst.oversize
        )
        self.survey.saw(burst.payloads, block)
        self.readings += block.readings
        self.last_reading = wall
        for reason, n in block.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + n
        for scoring in self.scorings.values():
            if had := scoring.shares.had(burst):  # before a restart, ahead of another model
                self._push_rest(scoring, hold, had, now, wall)
            else:
                scoring.push(block, hold, now)
        hold.parts -= 1

    def _push_rest(self, scoring: Scoring, hold: Hold, had: int, now: float, wall: float) -> None:
        burst = hold.burst
        topics = burst.topics[had:] if burst.topics is not None else None
        block = self.decoder.decode(burst.payloads[had:], topics, burst.arrived, wall)
        ids = burst.ids[: had * len(burst.ids) // len(burst.payloads)]
        scoring.push(block, hold, now, ids)

    @property
    def closed(self) -> bool:
        """Whether nothing may be read for now: paused, or a model on it is not ready for more."""
        return self.paused or any(scoring.closed for scoring in self.scorings.values())

    def health(self, trouble: str, iso: str) -> StreamHealth:
        """As the reports show it; `iso` is the last reading's time in words."""
        return StreamHealth(
            readings=self.readings,
            rejected=dict(self.rejected),
            last_reading=iso,
            paused=self.paused,
            trouble=trouble,
            last_reject=dict(self.decoder.last_reject),
        )
