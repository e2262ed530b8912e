"""What a format reader is asked for, and what it answers.  No format is known here."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.core.blocks import Column
from agent.core.errors import RefusedError

Path = tuple[str, ...]
REASON_CHARS_MAX = 240
_PLAIN_DOT = re.compile(r"(?<!\\)\.")


@dataclass(frozen=True, slots=True)
class Plan:
    """Which members of a payload are read: each field once, and the two that are not features.

    `fields` are the distinct paths as written; `slots` says which of them each wanted name is.
    """

    fields: tuple[str, ...]
    slots: Mapping[str, int]
    time: str = ""
    key: str = ""


def plan_of(names: Iterable[str], fields: Mapping[str, str], *, time: str, key: str) -> Plan:
    """The plan that finds every one of `names`."""
    order: dict[str, int] = {}
    slots = {name: order.setdefault(fields.get(name, name), len(order)) for name in names}
    return Plan(tuple(order), slots, time, key)


def parts_of(path: str) -> Path:
    """`vib.rms` as ("vib", "rms")."""
    return tuple(part.replace("\\.", ".") for part in _PLAIN_DOT.split(path))


def check_nesting(plan: Plan) -> None:
    """Raises RefusedError if one member would be read both as a value and as an object."""
    paths = {parts_of(p) for p in (*plan.fields, plan.time, plan.key) if p}
    for path in paths:
        for depth in range(1, len(path)):
            if path[:depth] in paths:
                outer, inner = ".".join(path[:depth]), ".".join(path)
                raise RefusedError(f"{outer} is read as a value and, for {inner}, as an object")


@dataclass(slots=True)
class Tally:
    """Readings that could not become a row, counted by reason; the latest of each is explained."""

    counts: dict[str, int] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)

    def reject(self, reason: str, sentence: str, readings: int = 1) -> None:
        """Count `readings` under `reason`."""
        self.counts[reason] = self.counts.get(reason, 0) + readings
        self.sentences[reason] = sentence[:REASON_CHARS_MAX]


Stamp = float | str | None  # an event time before it is understood; None: the reading has none
RawKey = str | int | None


@dataclass(slots=True)
class Found:
    """Readings a format reader found, in order.

    origin   for each reading, the number of the payload it was in; ascending
    columns  float64 [n] for each of `Plan.fields`; NaN where missing, else finite
    times    for each reading what stood for its time, float64 [n] where all are numbers; None if
             the plan asks for no time
    keys     for each reading what stood for its key; None if the plan asks for none
    """

    origin: Sequence[int] | NDArray[np.intp]
    columns: list[Column]
    times: Sequence[Stamp] | Column | None = None
    keys: Sequence[RawKey] | None = None


class Reader(Protocol):
    """A payload format."""

    def read(self, payloads: Sequence[bytes], origin: Sequence[int], tally: Tally) -> Found:
        """All readings in `payloads`, whose numbers are `origin`; what is bad goes to `tally`."""
        ...


class TopicReader(ABC):
    """A format whose payloads mean nothing without their topics, nor without those before them.

    Its `Found` has keys, of the topics.
    """

    @abstractmethod
    def read_with(
        self,
        topics: Sequence[bytes] | None,
        payloads: Sequence[bytes],
        origin: Sequence[int],
        tally: Tally,
    ) -> Found:
        """As `Reader.read`; `origin` are the places of the payloads' topics in `topics`."""

    @abstractmethod
    def peek(self, pick: float) -> Mapping[str, float | str] | None:
        """All that is known of one of the sensors that were read last: the one at `pick`, 0 to 1.

        NaN for nothing, words for what is no number.  None if nothing was read.
        """
