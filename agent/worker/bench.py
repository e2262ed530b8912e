"""What each provider makes of a model here: whether it starts, how long it loads, how fast it runs.

For `edge-agent providers`; runs in the process that asks.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from agent.worker import providers
from agent.worker.admission import numpy_name
from agent.worker.loaded import FATAL_ONLY, VERSION, compiled_in
from agent.worker.refusals import of_load, shortened

Array = NDArray[Any]
BATCHES = (1, 32, 1024)
WARM_RUNS = 5
RUNS_MIN, RUNS_MAX, SECONDS_PER_BATCH = 10, 2000, 1.0
# y = Identity(x), opset 13: proves that a provider starts, which being compiled in does not.
_IDENTITY = bytes.fromhex(
    "08073a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)


def probe(short: str) -> str:
    """Why `short` does not start here; empty if it does."""
    return _session(_IDENTITY, short)[1]


def measure(path: Path, short: str, told: Callable[[str], None]) -> dict[str, Any]:
    """Figures of the model at `path` on `short`; `told` hears of each step.

    Returns:
        `why` if it does not run; else `load_ms` and, by batch size, `p50_ms`, `p99_ms` and
        `rows_per_s`.  A model with a fixed batch is measured at that one.
    """
    told(f"{short}: loading")
    started = time.perf_counter()
    session, why = _session(str(path), short)
    if session is None:
        return {"why": why}
    load_ms = (time.perf_counter() - started) * 1e3
    inputs = session.get_inputs()
    fixed = next((n.shape[0] for n in inputs if n.shape and isinstance(n.shape[0], int)), None)
    batches = {}
    for rows in (fixed,) if fixed is not None else BATCHES:
        told(f"{short}: batches of {rows}")
        try:
            batches[str(rows)] = _timed(session, inputs, rows)
        except Exception as error:  # noqa: BLE001  onnxruntime's errors share no base but this
            return {"why": f"it does not run at batch {rows}: {shortened(error)}"}
    return {"why": "", "load_ms": round(load_ms, 2), "batches": batches}


def _session(model: str | bytes, short: str) -> tuple[Any, str]:
    built = compiled_in()
    options = ort.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = providers.PROVIDERS[short].mem_pattern
    asked = providers.asked(short, built)
    try:
        session = ort.InferenceSession(model, options, providers=asked, enable_fallback=0)
    except Exception as error:  # noqa: BLE001  onnxruntime's errors share no base but this
        return None, of_load(error, VERSION).why
    if session.get_providers()[0] != providers.PROVIDERS[short].name:
        return None, "its driver or libraries are missing"
    return session, ""


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
