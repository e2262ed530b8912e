"""What the hop into a worker costs: bare onnxruntime, inline, and process, at four batch sizes."""

import select
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agent.adapters.onnx import InlineEngine
from agent.adapters.processes import ProcessEngine
from agent.core.manifest import parse
from agent.core.names import Digest, ModelRef
from agent.ports import Session
from tests.world import zoo

REF = ModelRef("bench", 1, Digest(f"sha256:{'0' * 64}"))
BATCHES = (1, 32, 128, 1024)
RUNS, ROUNDS = 2000, 5
RUNS_LARGE = 5


def timed(once: Callable[[], object], runs: int = RUNS) -> float:
    """Median µs of one call."""
    took = []
    for _ in range(runs):
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


def mlp(folder: Path) -> Path:
    return zoo.mlp(folder)


def cnn(folder: Path) -> Path:
    return zoo.cnn(folder, features=512, channels=4096)


@pytest.mark.parametrize(
    ("make", "shape", "goal"),
    [
        pytest.param(mlp, (128, 8), "0.6", id="the MLP"),
        pytest.param(cnn, (128, 16, 512), "0.97", id="a CNN of 25 MB"),
    ],
)
def test_batches_through_the_worker_beside_bare_runs(tmp_path, request, make, shape, goal):
    """One batch is always on its way while another runs, as the lane has it."""
    figure, name = request.getfixturevalue("figure"), request.node.callspec.id
    folder, runs = make(tmp_path / "m"), RUNS if len(shape) == 2 else RUNS_LARGE
    manifest = parse((folder / "model.toml").read_bytes())
    inline = InlineEngine(sealed=False).load(REF, folder, manifest, background=False)
    process = ProcessEngine(sealed=False).load(REF, folder, manifest, background=False)
    assert inline._loaded is not None
    bare = inline._loaded
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    hop = overlapped(process, x)
    laps = [(timed(lambda: bare.run([x]), runs), timed(hop, runs)) for _ in range(ROUNDS)]
    alone, through_it = np.median(laps, axis=0)
    figure(
        f"batches of 128 a second through the worker ÷ bare `run`, {name}",
        f"{alone / through_it:.2f} ({alone:,.0f} µs ÷ {through_it:,.0f} µs)",
        goal,
    )
    inline.close()
    process.close()
