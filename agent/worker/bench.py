"""What each provider makes of a model here: whether it starts, how long it loads, how fast it runs,
what memory it takes and how far its answers are from the CPU's.

For `edge-agent providers`, one provider a process: `python -m agent.worker.bench PROVIDER [MODEL]`
prints its figures as JSON.  A driver that crashes takes nobody with it, and memory is its own.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from agent.core.accelerators import CPU, PROVIDERS
from agent.worker import making, providers
from agent.worker.admission import numpy_name
from agent.worker.refusals import of_load, of_run

Array = NDArray[Any]
BATCHES = (1, 8, 32)
WARM_RUNS = 5
RUNS_MIN, RUNS_MAX, SECONDS_PER_BATCH = 10, 2000, 1.0
SECONDS_MAX = 1800.0  # of one provider; engines of large models take their time
# y = Identity(x), opset 13: proves that a provider starts, which being compiled in does not.
_IDENTITY = bytes.fromhex(
    "08073a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)


def probe(short: str) -> str:
    """Why `short` does not start here; empty if it does."""
    return str(apart(short, None)["why"])


def apart(short: str, path: Path | None) -> dict[str, Any]:
    """`measure`, or with no model the mere start, in a process of its own."""
    command = [sys.executable, "-m", "agent.worker.bench", short]
    command += [str(path.resolve())] if path is not None else []
    root = str(Path(__file__).resolve().parents[2])
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS_MAX, check=False, cwd=root
        )
    except subprocess.TimeoutExpired:
        return {"why": f"it did not end within {SECONDS_MAX:.0f} s"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return {"why": f"its process ended with {done.returncode} {' '.join(words)}".strip()}
    return answer


def measure(path: Path, short: str) -> dict[str, Any]:
    """Figures of the model at `path` on `short`.

    Returns:
        `why` if it does not run; else `load_ms`, `memory_mb` (by which this process grew), `error`
        (the largest difference to what the CPU answers), `nodes` (share by provider) and by batch
        size `p50_ms`, `p99_ms` and `rows_per_s`.  A fixed batch is measured at its size.
    """
    before = _memory_mb()
    started = time.perf_counter()
    made, why = _made(path, short)
    if made is None:
        return {"why": why}
    load_ms = (time.perf_counter() - started) * 1e3
    session = made.session
    inputs = session.get_inputs()
    fixed = next((n.shape[0] for n in inputs if n.shape and isinstance(n.shape[0], int)), None)
    batches = {}
    for rows in (fixed,) if fixed is not None else BATCHES:
        try:
            batches[str(rows)] = _timed(session, inputs, rows)
        except Exception as error:  # noqa: BLE001  onnxruntime's errors share no base but this
            return {"why": f"it does not run at batch {rows}: {of_run(error).why}"}
    memory_mb = _memory_mb() - before
    return {
        "why": "",
        "load_ms": round(load_ms, 2),
        "memory_mb": round(memory_mb, 1),
        "error": 0.0 if short == CPU else _error(path, session, fixed or BATCHES[0]),
        "nodes": made.nodes,
        "batches": batches,
    }


def _made(model: Path | bytes, short: str) -> tuple[making.Made | None, str]:
    built = making.compiled_in()
    if PROVIDERS[short].name not in built:
        return None, making.absent(short)
    brief: Mapping[str, Any] = {"threads": 1}
    try:
        if isinstance(model, bytes):
            options = making.session_options(short, threads=1)
            asked = providers.asked(short, built)
            session = ort.InferenceSession(model, options, providers=asked, enable_fallback=0)
            made = making.Made(session, short)
        else:
            made = making.session_on(short, model, brief, built, watched=False)
    except Exception as error:  # noqa: BLE001  onnxruntime's errors share no base but this
        return None, of_load(error, making.VERSION).why
    doubt = making.not_there(made.session, short, made.nodes)
    return (None, doubt) if doubt else (made, "")


def _timed(session: Any, inputs: Sequence[Any], rows: int) -> dict[str, float]:
    feed = {node.name: _example(node, rows) for node in inputs}
    for _ in range(WARM_RUNS):
        session.run(None, feed)
    took: list[float] = []
    until = time.perf_counter() + SECONDS_PER_BATCH
    while len(took) < RUNS_MIN or (len(took) < RUNS_MAX and time.perf_counter() < until):
        started = time.perf_counter()
        session.run(None, feed)
        took.append((time.perf_counter() - started) * 1e3)
    p50, p99 = np.percentile(took, [50, 99])
    return {
        "p50_ms": round(float(p50), 4),
        "p99_ms": round(float(p99), 4),
        "rows_per_s": round(rows / (float(p50) / 1e3)),
    }


def _error(path: Path, session: Any, rows: int) -> float | None:
    """The largest |here - CPU| of any number it answers; None where there are none to compare."""
    made, _ = _made(path, CPU)
    if made is None:
        return None
    feed = {node.name: _example(node, rows) for node in session.get_inputs()}
    worst = 0.0
    for here, there in zip(session.run(None, feed), made.session.run(None, feed), strict=True):
        if not isinstance(here, np.ndarray) or here.dtype.kind not in "fiub":
            return None
        gap = np.abs(here.astype(np.float64) - there.astype(np.float64))
        worst = max(worst, float(gap.max(initial=0.0)))
    return worst


def _example(node: Any, rows: int) -> Array:
    """Noise of the right type and shape; dimensions other than the first are 1 where free."""
    dtype = numpy_name(node.type)
    shape = [n if isinstance(n, int) else 1 for n in node.shape]
    if shape and not isinstance(node.shape[0], int):
        shape[0] = rows
    if dtype == "str":
        return np.full(shape, "", dtype=object)
    noise = np.random.default_rng(0).random(shape)
    return noise.astype(dtype or "float32")


def _memory_mb() -> float:
    """The most resident memory this process ever had; 0 where nobody can tell."""
    try:
        import resource  # noqa: PLC0415  there is none on Windows
    except ImportError:
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main(arguments: Sequence[str]) -> None:
    """One provider, and the model if there is one."""
    ort.set_default_logger_severity(making.FATAL_ONLY)
    making.register({})
    if len(arguments) > 1:
        answer = measure(Path(arguments[1]), arguments[0])
    else:
        answer = {"why": _made(_IDENTITY, arguments[0])[1]}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
