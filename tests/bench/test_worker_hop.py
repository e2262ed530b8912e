"""What the hop into a worker costs: bare onnxruntime, inline, and process, at four batch sizes.

PYTHONPATH=. python tests/bench/bench_worker.py
"""

import select
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from agent.adapters.onnx import InlineEngine
from agent.adapters.processes import ProcessEngine
from agent.core.manifest import parse
from agent.core.names import Digest, ModelRef
from agent.ports import Session
from tests.world import zoo

REF = ModelRef("bench", 1, Digest(f"sha256:{'0' * 64}"))
BATCHES = (1, 32, 128, 1024)
RUNS, ROUNDS = 2000, 5


def timed(once: Callable[[], object]) -> float:
    """Median µs of one call."""
    took = []
    for _ in range(RUNS):
        started = time.perf_counter_ns()
        once()
        took.append(time.perf_counter_ns() - started)
    return float(np.median(took)) / 1e3


def through(session: Session, x: np.ndarray) -> Callable[[], object]:
    poll = select.poll()
    poll.register(session.fileno(), select.POLLIN)

    def once() -> object:
        session.submit(1, [x])
        poll.poll()
        return session.collect()

    return once


def overlapped(session: Session, x: np.ndarray) -> Callable[[], object]:
    """With the next job always written while one runs."""
    poll = select.poll()
    poll.register(session.fileno(), select.POLLIN)
    session.submit(0, [x])

    def once() -> object:
        session.submit(1, [x])
        answers: list[object] = []
        while not answers:
            poll.poll()
            answers += session.collect()
        return answers

    return once


def test_what_the_hop_into_a_worker_costs(tmp_path: Path) -> None:
    folder = zoo.mlp(tmp_path / "m")
    manifest = parse((folder / "model.toml").read_bytes())
    inline = InlineEngine(sealed=False).load(REF, folder, manifest, background=False)
    process = ProcessEngine(sealed=False).load(REF, folder, manifest, background=False)
    assert inline._loaded is not None
    bare = inline._loaded
    print(f"{'batch':>6} {'bare':>8} {'inline':>8} {'process':>8} {'hop':>8}   µs, median")
    for rows in BATCHES:
        x = zoo.rows(8, count=rows)
        figures = np.array(
            [
                [
                    timed(lambda x=x: bare.run([x])),
                    timed(through(inline, x)),
                    timed(through(process, x)),
                ]
                for _ in range(ROUNDS)
            ]
        )
        a, b, c = np.median(figures, axis=0)
        hop = np.median(figures[:, 2] - figures[:, 1])
        print(f"{rows:>6} {a:>8.1f} {b:>8.1f} {c:>8.1f} {hop:>8.1f}")
    print("\noverlapped, µs per batch:")
    for rows in BATCHES:
        fresh = ProcessEngine(sealed=False).load(REF, folder, manifest, background=False)
        x = zoo.rows(8, count=rows)
        print(f"{rows:>6} {timed(overlapped(fresh, x)):>8.1f}")
        fresh.close()
    starts = []
    for _ in range(10):
        started = time.perf_counter()
        session = ProcessEngine(sealed=False).load(REF, folder, manifest, background=False)
        starts.append((time.perf_counter() - started) * 1e3)
        session.close()
    print(
        f"\nstart and load of a worker: {np.median(starts):.0f} ms; {process.rss_bytes() >> 20} MiB"
    )
    inline.close()
    process.close()
