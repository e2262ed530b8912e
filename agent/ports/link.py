"""The way to those who desire and are told."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """One message from the control connection."""

    topic: str
    payload: bytes
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None


class Link(Protocol):
    """The control and telemetry connection.  It connects and reconnects by itself while running.

    Subscriptions are given before `run` and renewed at every connect.
    """

    def messages(self) -> AsyncIterator[Message]: ...

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        correlation: bytes | None = None,
    ) -> bool:
        """QoS 1; returns once the broker has acknowledged it.

        False: the broker has it, and says that nobody has subscribed to it (PUBACK 0x10), so it
        went to nobody.  True where somebody has, or where the broker does not say.

        Raises:
            UnavailableError: not connected, or the link was lost before the answer.
            RefusedError: the broker will never take this message (size, topic, rights).
        """
        ...

    async def connected(self) -> None:
        """Until the link stands."""
        ...

    def trouble(self) -> str:
        """Why it does not stand, in a sentence; empty if it does."""
        ...

    async def run(self) -> None:
        """Keep the link up until cancelled; then say goodbye in order."""
        ...


class Login(Protocol):
    """How a broker is told who we are, where that differs from connect to connect.

    Asked at each connect, in a thread that may wait.  Both raise UnavailableError.
    """

    def password(self) -> str: ...
    def authorities(self) -> str:
        """PEM of those whose word is taken for the broker's certificate; empty: the system's."""
        ...
