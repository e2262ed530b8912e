"""This device: its clocks, its memory, and where its people look."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agent.core.health import HealthReport
from agent.core.scores import Known, ScoreColumns


class Clock(Protocol):
    """Times.  Monotonic for scheduling, wall for what people and documents read."""

    def monotonic(self) -> float: ...
    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC, as this device believes."""
        ...


@dataclass(frozen=True, slots=True)
class Memory:
    """What this process and its workers may use, and what of it is free now, in bytes.

    The tightest of all bounds that are known; None where none is.  `source` says who sets it.
    """

    limit_bytes: int | None
    free_bytes: int | None
    source: str


class Machine(Protocol):
    """What a version is held against before it is let in."""

    def memory(self) -> Memory:
        """As of now; never raises.  It reads a few small files: not for the lane's thread."""
        ...

    def architecture(self) -> str:
        """`x86_64`, `aarch64`, …"""
        ...


class Questions(Protocol):
    """The live versions, to be asked from any event loop."""

    async def known(self, model: str) -> Known:
        """Raises RefusedError (404: no such model, 409: none is active), UnavailableError."""
        ...

    async def ask(
        self, model: str, inputs: object, *, release: int | None = None
    ) -> tuple[int, ScoreColumns]:
        """What the active version says to `inputs`, {feature: [values]}, and its release.

        `release`: no other is to answer.

        Raises:
            RefusedError: as `known`, or the inputs are not its features (400).
            UnavailableError: no answer came in time.
        """
        ...


class Faces(Protocol):
    """The local endpoint.  Both calls return at once and may come from any thread."""

    def show(self, report: HealthReport) -> None:
        """This is how the agent is now; /state, /readyz, /metrics and the page render it."""
        ...

    def tell(self, event: Mapping[str, Any]) -> None:
        """Pass an event on to whoever listens on /events."""
        ...
