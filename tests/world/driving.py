"""Drives a source the way the lane does: selects on it, ticks it, reads it, accepts."""

import select
import time
from collections.abc import Callable, Sequence

from agent.ports import Burst, Source


def drive(
    source: Source,
    until: Callable[[list[Burst]], object],
    seconds: float = 10.0,
    *,
    accept: bool = True,
    readings_max: int = 10_000,
) -> list[Burst]:
    """Until `until(bursts)` is true, or the time is over; returns the bursts that came."""
    bursts: list[Burst] = []
    deadline = time.monotonic() + seconds
    next_tick = 0.0
    while not until(bursts) and (now := time.monotonic()) < deadline:
        if now >= next_tick:
            next_tick = source.tick(now)
        fd = source.fileno()
        reads = [fd] if fd is not None else []
        writes = reads if source.wants_write() else []
        wait = max(0.0, min(next_tick, deadline) - now)
        if reads or writes:
            select.select(reads, writes, [], min(wait, 0.1))
        else:
            time.sleep(min(wait, 0.01))
        came = source.read(readings_max)
        bursts += came
        if accept:
            source.accept([burst.token for burst in came])
    return bursts


def payloads(bursts: Sequence[Burst], stream: str | None = None) -> list[bytes]:
    """All payloads, in order; of one stream if it is named."""
    return [p for b in bursts if stream in (None, b.stream) for p in b.payloads]


def count(number: int, stream: str | None = None) -> Callable[[list[Burst]], bool]:
    """A predicate for `drive`: that many payloads came."""
    return lambda bursts: len(payloads(bursts, stream)) >= number


def stands(source: Source) -> Callable[[list[Burst]], bool]:
    """A predicate for `drive`: the source has no trouble."""
    return lambda _: not source.trouble()
