"""How long a version takes for one row: runs of its golden samples, one at a time.

A candidate runs at the lowest scheduling class beside a live stream, where time on the wall says
more about its neighbours than about it.  Where the processor computes, the processor time of a run
is taken instead: the most that one thread had to do, which is the least that the run can take.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any

from agent.core.accelerators import PROVIDERS
from agent.worker.loaded import Array, Loaded
from agent.worker.refusals import RefusalError, is_memory, misfit, shortened, unfit

SAMPLES_MAX = 16
ROUNDS = 5
RUNS_MIN = 3  # however long they take
SECONDS_MAX = 0.5  # by the wall: about this long a live session would feel it


def measure(loaded: Loaded, samples: Sequence[Array], *, threads: int) -> dict[str, Any]:
    """`sample_ms` and `runs`, as in `agent.core.preflight.Measures`; axis 0 counts the samples.

    Raises:
        RefusalError: a sample that runs among others does not run alone.
    """
    on_cpu = PROVIDERS[loaded.provider].on_host
    count = min(SAMPLES_MAX, len(samples[0]))
    rows = [[array[i : i + 1] for array in samples] for i in range(count)]
    took: list[list[float]] = [[] for _ in rows]
    _run(loaded, rows[0])  # to warm up
    deadline = time.perf_counter() + SECONDS_MAX
    for turn in range(ROUNDS * count):
        if turn >= RUNS_MIN and time.perf_counter() > deadline:
            break
        wall, own, all_of_us = time.perf_counter(), time.thread_time(), time.process_time()
        _run(loaded, rows[turn % count])
        seconds = time.perf_counter() - wall
        if on_cpu:
            own, all_of_us = time.thread_time() - own, time.process_time() - all_of_us
            seconds = min(seconds, max(own, all_of_us / threads))
        took[turn % count].append(seconds * 1e3)
    return {
        "sample_ms": [statistics.median(ms) for ms in took if ms],
        "runs": sum(map(len, took)),
    }


def _run(loaded: Loaded, row: Sequence[Array]) -> None:
    try:
        loaded.run(row)
    except Exception as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> RefusalError:
    if is_memory(error):
        return misfit("a single row needs more memory than a worker may use here")
    return unfit(f"it does not run on a single row: {shortened(error)}")
