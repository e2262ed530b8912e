"""Joining a group that shares a stream: not before there is a version to score what one is dealt.

The broker deals a shared stream's messages to whoever is subscribed.  A member without a version
would take its part from those that could score it, and could only reject it.  Decides nothing else:
once joined, it is the source within.
"""

from collections.abc import Callable, Sequence

from agent.ports import Burst, Source

ASK_AGAIN_S = 0.1


class Joining(Source):
    """`source`, first dialled when `may` says so; asked by the lane's thread alone."""

    def __init__(self, source: Source, may: Callable[[], bool]) -> None:
        self.name = source.name
        self._source = source
        self._may = may
        self._joined = False

    def fileno(self) -> int | None:
        """As the source within."""
        return self._source.fileno()

    def wants_write(self) -> bool:
        """As the source within."""
        return self._source.wants_write()

    def read(self, readings_max: int) -> Sequence[Burst]:
        """As the source within."""
        return self._source.read(readings_max)

    def accept(self, tokens: Sequence[object]) -> None:
        """As the source within."""
        self._source.accept(tokens)

    def resume(self, mark: bytes) -> None:
        """As the source within."""
        self._source.resume(mark)

    def tick(self, now: float) -> float:
        """As the source within, as soon as it may join."""
        self._joined = self._joined or self._may()
        return self._source.tick(now) if self._joined else now + ASK_AGAIN_S

    def trouble(self) -> str:
        """As the source within; or what it is waiting for."""
        if self._joined:
            return self._source.trouble()
        return f"{self.name} joins the group when a version is there to score its part"

    def close(self) -> None:
        """As the source within."""
        self._source.close()
