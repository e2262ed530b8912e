"""Writes complete model packages: `model.onnx`, `model.toml` and `golden.npz` in one folder.

The models themselves are in `zoo` (well behaved) and `wild` (not).  Nothing of the agent is used
here, so that a test compares two opinions and not one with itself.
"""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import, or it phones home
import onnxruntime as ort

OPSET = 17
IR = 8  # what opset 17 was released with; every onnxruntime since 1.12 reads it
Feed = Mapping[str, np.ndarray]


def tensor(name: str, dtype: str, shape: Sequence[int | str | None] | None) -> onnx.ValueInfoProto:
    """A graph input or output, by numpy's name for its dtype."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, element, shape)


def constant(name: str, value: Any, dtype: str = "float32") -> onnx.TensorProto:
    """An initializer."""
    return onnx.numpy_helper.from_array(np.asarray(value, dtype=dtype), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    opsets: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model with the pinned versions, or with `opsets` (domain -> version; "" is ai.onnx)."""
    graph = helper.make_graph(nodes, "zoo", inputs, outputs, list(constants))
    imports = [helper.make_opsetid(d, v) for d, v in ({"": OPSET} | dict(opsets or {})).items()]
    made = helper.make_model(graph, opset_imports=imports, producer_name="zoo")
    made.ir_version = IR
    return made


def reference(path: Path, feed: Feed) -> dict[str, np.ndarray]:
    """What onnxruntime answers to `feed`, by output name; the golden outputs of the zoo."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def quickest_ms(made: onnx.ModelProto, feed: Feed, runs: int = 50) -> float:
    """How long a run takes when nothing is in its way."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(made.SerializeToString(), options)
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        session.run(None, dict(feed))
        taken.append(time.perf_counter() - began)
    return 1000 * min(taken)


def write(
    folder: Path,
    made: onnx.ModelProto | bytes,
    manifest: Mapping[str, Any],
    feed: Feed,
    want: Feed | None = None,
) -> Path:
    """A package in `folder`.  `want` stands in for golden outputs that cannot be computed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    (folder / "model.toml").write_text(toml(manifest), encoding="utf-8")
    record(folder, feed, reference(path, feed) if want is None else want)
    return folder


def record(folder: Path, feed: Feed, want: Feed) -> None:
    """Golden samples: axis 0 of every array counts them."""
    arrays = {f"in:{k}": v for k, v in feed.items()} | {f"out:{k}": v for k, v in want.items()}
    np.savez(folder / "golden.npz", **arrays)  # type: ignore[arg-type]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on it, table by table; None takes a member away."""
    result = dict(base)
    for key, value in over.items():
        inner = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(inner, Mapping):
            result[key] = merged(inner, value)
        else:
            result[key] = value
    return result


def toml(document: Mapping[str, Any]) -> str:
    """`document` as TOML, tables at the first level and inline below."""
    plain = {k: v for k, v in document.items() if not isinstance(v, Mapping)}
    lines = [f"{_key(k)} = {_value(v)}" for k, v in plain.items()]
    for name, table in document.items():
        if isinstance(table, Mapping):
            lines += [
                "",
                f"[{_key(name)}]",
                *(f"{_key(k)} = {_value(v)}" for k, v in table.items()),
            ]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)
