"""One stream: bursts from its source, decoded once, handed to every model that listens.

Runs on the lane's thread.  Counts what came in before any model saw it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from agent.core.blocks import Block, joined
from agent.core.decoding import Decoder
from agent.core.health import StreamHealth
from agent.core.streams import StreamSpec
from agent.core.survey import Survey
from agent.ports import Burst, Source
from agent.runtime.holds import Holds
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
        self.survey = Survey(self.spec, lambda: self.decoder.header, self.decoder.peek)

    def take(self, source: Source, burst: Burst, now: float, wall: float) -> None:
        """Decode a burst and give every scoring its block; or the rest of it, to one that was
        ahead of others before a restart.
        """
        hold = self.holds.open(source, burst)
        had = {name: scoring.shares.had(burst) for name, scoring in self.scorings.items()}
        cuts = sorted({0, *had.values()})
        parts = self._decoded(burst, cuts, wall)
        block = joined(parts)
        self.survey.saw(burst.payloads, block)
        self.readings += block.readings
        self.last_reading = wall
        for reason, n in block.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + n
        for name, scoring in self.scorings.items():
            if not had[name]:
                scoring.push(block, hold, now)
                continue
            ids = burst.ids[: had[name] * len(burst.ids) // len(burst.payloads)]
            scoring.push(joined(parts[cuts.index(had[name]) :]), hold, now, ids)
        hold.parts -= 1

    def _decoded(self, burst: Burst, cuts: Sequence[int], wall: float) -> list[Block]:
        """The payloads from each cut to the next, each decoded once: it may matter to the next."""
        if len(cuts) == 1:
            cut = [(burst.payloads, burst.topics)]
        else:
            spans = [slice(*span) for span in pairwise([*cuts, len(burst.payloads)])]
            topics = burst.topics
            cut = [(burst.payloads[s], None if topics is None else topics[s]) for s in spans]
        return [
            self.decoder.decode(
                payloads, topics, burst.arrived, wall, oversize=0 if i else burst.oversize
            )
            for i, (payloads, topics) in enumerate(cut)
        ]

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
            seq_gaps=self.decoder.census.gaps if self.decoder.census is not None else 0,
        )
