"""A lane that stands still: what others ask of it is done on the spot, on their own thread.

For tests of what lives on the event loop; the lane that turns is tested by itself.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from agent.core.decoding import Decoder
from agent.core.streams import StreamSpec
from agent.ports import Clock, Outbox
from agent.runtime.descriptors import Descriptors, Ready
from agent.runtime.intake import Intake
from agent.runtime.lane import Lane

T = TypeVar("T")


def intake(name: str = "s", **spec: Any) -> Intake:
    """A stream of JSON readings with one field, `v`, and a key, `k`."""
    whole = StreamSpec(name=name, **{"format": "json", "fields": {}, "key": "k", **spec})
    return Intake(whole, Decoder(whole, ()))


class _Impatient(Descriptors):
    """Looks, and does not wait."""

    def ready(self, timeout_s: float) -> Ready:  # as the lane asks it
        return super().ready(0)

    def ready_at_rest(self, timeout_s: float) -> Ready:
        return super().ready_at_rest(0)


class StillLane(Lane):
    """Close it after use: it was never started, and nothing else does."""

    def __init__(self, clock: Clock, outbox: Outbox) -> None:
        super().__init__(clock, outbox)
        self._descriptors.close()
        self._descriptors = _Impatient(self._wake_reader.fileno())

    def call(self, function: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Give back its descriptors."""
        self._descriptors.close()
        self._wake_reader.close()
        self._wake_writer.close()


def still_lane(clock: Clock, outbox: Outbox, *streams: str) -> StillLane:
    """A still lane with these streams."""
    lane = StillLane(clock, outbox)
    for stream in streams:
        lane.intakes[stream] = intake(stream)
    return lane


class SamePlace(Executor):
    """Runs what it is given at once; `later` keeps it until `go`."""

    def __init__(self, *, later: bool = False) -> None:
        self.later = later
        self._kept: list[Callable[[], object]] = []

    def submit(  # type: ignore[override]  # nobody asks for the future
        self, fn: Callable[..., object], /, *args: Any, **kwargs: Any
    ) -> None:
        self._kept.append(lambda: fn(*args, **kwargs))
        if not self.later:
            self.go()

    def go(self) -> None:
        """Run what was kept."""
        kept, self._kept = self._kept, []
        for one in kept:
            one()
