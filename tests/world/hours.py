"""Time that only moves when told, or when nothing else is left to do.

`HandClock` is a clock a test moves.  `passing(main, clock)` runs a coroutine on an event loop that
lives by such a clock: threads are run on the spot and sleeps are jumped over as soon as nothing
else can happen, so that hours of back-off cost nothing and come out the same each time.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

MOMENT_S = 1e-6


class HandClock:
    """The `Clock` port, in a test's hand."""

    def __init__(self, monotonic: float = 1000.0, wall: float = 1_732_180_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def forward(self, seconds: float) -> None:
        """Let so much time pass."""
        self._monotonic += seconds
        self._wall += seconds


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting for a timer it moves the clock."""

    clock: HandClock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        assert timeout is not None, "everything waits and nothing will ever happen"
        self.clock.forward(timeout)
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        selector = _Jumping()
        selector.clock = clock
        super().__init__(selector)

    def time(self) -> float:
        return self._clock.monotonic()

    def run_in_executor(  # type: ignore[override]  # done before it returns
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def passing(main: Coroutine[Any, Any, T], clock: HandClock | None = None) -> T:
    """What `main` returns, run in time that passes by itself."""
    chosen = clock or HandClock()
    with asyncio.Runner(loop_factory=lambda: _Loop(chosen)) as runner:
        return runner.run(main)


async def quiet(seconds: float = MOMENT_S) -> None:
    """Until all that can happen has, and then `seconds` more."""
    await asyncio.sleep(seconds)
