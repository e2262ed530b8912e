"""Small ONNX models that behave, as complete package folders.  Their savage kin are in `wild`.

Every maker has the same manner: `zoo.mlp(folder, **what the model is, **manifest members)`, and
gives back `folder`.  Manifest members are laid over the maker's own, table by table:

    zoo.mlp(tmp_path / "v2", bias=0.5, name="pump", runtime={"providers": ["cuda", "cpu"]})
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.world.pack import constant, merged, model, quickest_ms, record, reference, tensor, write

SAMPLES = 4  # golden samples per package
TURNS = 2000  # to find out what one takes


def feature_names(features: int) -> list[str]:
    """The names a maker gives its features unless told."""
    return [f"f{i}" for i in range(features)]


def manifest(features: int | Mapping[str, Any], /, **members: Any) -> dict[str, Any]:
    """The least a manifest must say, with `members` laid over it.

    `features` is how many, or the manifest's own table where their names matter.
    """
    table = {"names": feature_names(features)} if isinstance(features, int) else features
    least = {
        "name": "zoo",
        "features": table,
        "output": {"score": {"tensor": "y"}},
    }
    return merged(least, members)


def rows(features: int, seed: int = 0, count: int = SAMPLES) -> np.ndarray:
    """Golden inputs: float32 [count, features]."""
    return np.random.default_rng(seed + 1000).normal(size=(count, features)).astype(np.float32)


def dense(source: str, target: str, widths: tuple[int, ...], seed: int, bias: float = 0.0) -> Any:
    """Nodes and constants of an MLP from `source` to `target`; the last layer adds `bias`."""
    rng = np.random.default_rng(seed)
    nodes, constants, last = [], [], len(widths) - 2
    for i, (n, m) in enumerate(pairwise(widths)):
        constants.append(constant(f"w{i}", rng.normal(size=(n, m)) / np.sqrt(n)))
        constants.append(constant(f"b{i}", np.full(m, bias if i == last else 0.01)))
        out = target if i == last else f"h{i}"
        nodes.append(helper.make_node("Gemm", [source, f"w{i}", f"b{i}"], [out]))
        if i != last:
            nodes.append(helper.make_node("Relu", [out], [source := f"r{i}"]))
    return nodes, constants


def mlp(
    folder: Path,
    *,
    features: int | Mapping[str, Any] = 8,
    seed: int = 0,
    bias: float = 0.0,
    batch: int | None = None,
    **members: Any,
) -> Path:
    """x [batch, features] -> y [batch, 1], 8-32-16-1.  With the same seed, `bias` is the difference
    between two versions' scores, exactly enough to tell them apart.  `batch` fixes the batch size.
    """
    document = manifest(features, **members)
    width = len(document["features"]["names"])
    nodes, constants = dense("x", "y", (width, 32, 16, 1), seed, bias)
    size = batch or "batch"
    made = model(
        nodes, [tensor("x", "f4", [size, width])], [tensor("y", "f4", [size, 1])], constants
    )
    return write(folder, made, document, {"x": rows(width, seed, batch or SAMPLES)})


def two_inputs(folder: Path, **members: Any) -> Path:
    """a [batch, 2] and b [batch, 1] -> y [batch, 1] = a0 + 10 a1 + 100 b."""
    document = manifest(
        3,
        **merged({"input": {"a": {"features": ["f0", "f1"]}, "b": {"features": ["f2"]}}}, members),
    )
    nodes = [
        helper.make_node("MatMul", ["a", "wa"], ["pa"]),
        helper.make_node("MatMul", ["b", "wb"], ["pb"]),
        helper.make_node("Add", ["pa", "pb"], ["y"]),
    ]
    made = model(
        nodes,
        [tensor("a", "f4", ["n", 2]), tensor("b", "f4", ["n", 1])],
        [tensor("y", "f4", ["n", 1])],
        [constant("wa", [[1], [10]]), constant("wb", [[100]])],
    )
    golden = rows(3)
    return write(folder, made, document, {"a": golden[:, :2], "b": golden[:, 2:]})


def pooled(folder: Path, *, bias: float = 0.0, **members: Any) -> Path:
    """x [batch, 8] -> y [batch, 1] by way of 16 × 32 × 32 and wide pools: OpenVINO runs it several
    times as fast as onnxruntime's own CPU provider, on one thread.
    """
    document = manifest(8, **members)
    rng = np.random.default_rng(0)
    pool = {"kernel_shape": [7, 7], "pads": [3] * 4}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Reshape", ["h", "shape"], ["image"]),
        helper.make_node("AveragePool", ["image"], ["p0"], **pool),
        helper.make_node("LRN", ["p0"], ["p1"], size=5),
        helper.make_node("MaxPool", ["p1"], ["p2"], **pool),
        helper.make_node("ReduceMean", ["p2"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("Add", ["column", "bias"], ["y"]),
    ]
    constants = [
        constant("w", rng.normal(size=(8, 16 * 32 * 32))),
        constant("shape", [-1, 16, 32, 32], "int64"),
        constant("one", [1], "int64"),
        constant("bias", [bias]),
    ]
    made = model(nodes, [tensor("x", "f4", ["n", 8])], [tensor("y", "f4", ["n", 1])], constants)
    return write(folder, made, document, {"x": rows(8)})


def running_sum(folder: Path, **members: Any) -> Path:
    """x [batch, 1], h [batch, 1] -> y = h_out = x + h: state carried from call to call."""
    document = manifest(1, **merged({"state": {"h": "h_out"}}, members))
    nodes = [
        helper.make_node("Add", ["x", "h"], ["y"]),
        helper.make_node("Identity", ["y"], ["h_out"]),
    ]
    column = ["n", 1]
    made = model(
        nodes,
        [tensor("x", "f4", column), tensor("h", "f4", column)],
        [tensor("y", "f4", column), tensor("h_out", "f4", column)],
    )
    return write(folder, made, document, {"x": rows(1), "h": rows(1, seed=1)})


def classifier(folder: Path, *, features: int = 4, seed: int = 0, **members: Any) -> Path:
    """x [batch, features] -> label int64 [batch], probabilities float32 [batch, 3]."""
    names = ["ok", "worn", "broken"]
    output = {
        "score": {"tensor": "probabilities", "column": 1, "threshold": 0.5},
        "label": {"tensor": "label", "names": names},
    }
    document = manifest(features, **merged({"output": output}, members))
    nodes, constants = dense("x", "logits", (features, 8, 3), seed)
    nodes += [
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
    ]
    made = model(
        nodes,
        [tensor("x", "f4", ["n", features])],
        [tensor("label", "i8", ["n"]), tensor("probabilities", "f4", ["n", 3])],
        constants,
    )
    return write(folder, made, document, {"x": rows(features, seed)})


def cnn(
    folder: Path,
    *,
    length: int = 16,
    features: int = 2,
    channels: int = 4,
    seed: int = 0,
    **members: Any,
) -> Path:
    """x [batch, length, features] -> y [batch, 1]: convolution over a tumbling window."""
    tumbling = {"window": {"kind": "tumbling", "size": str(length)}}
    document = manifest(features, **merged(tumbling, members))
    kernel = np.random.default_rng(seed).normal(size=(channels, features, 3))
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["t", "k"], ["c"], kernel_shape=[3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    made = model(
        nodes,
        [tensor("x", "f4", ["n", length, features])],
        [tensor("y", "f4", ["n", 1])],
        [constant("k", kernel), constant("w", np.ones((channels, 1)))],
    )
    golden = rows(length * features, seed).reshape(SAMPLES, length, features)
    return write(folder, made, document, {"x": golden})


def columns(folder: Path, **members: Any) -> Path:
    """temp, vib [batch, 1], one tensor per feature, -> y [batch, 1] = temp + 10 vib."""
    own = {"input": {"layout": "columns"}}
    document = manifest({"names": ["temp", "vib"]}, **merged(own, members))
    nodes = [
        helper.make_node("Concat", ["temp", "vib"], ["x"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    made = model(
        nodes,
        [tensor("temp", "f4", ["n", 1]), tensor("vib", "f4", ["n", 1])],
        [tensor("y", "f4", ["n", 1])],
        [constant("w", [[1], [10]])],
    )
    golden = rows(2)
    return write(folder, made, document, {"temp": golden[:, :1], "vib": golden[:, 1:]})


def external(folder: Path, *, features: int = 8, seed: int = 0, **members: Any) -> Path:
    """The mlp with its weights in `weights.bin` beside the model."""
    mlp(folder, features=features, seed=seed, **members)
    path = folder / "model.onnx"
    onnx.save_model(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return folder


def big(folder: Path, *, size_mb: int = 64, bias: float = 0.0, **members: Any) -> Path:
    """A table of `size_mb` MiB of weights, of which a run touches one row per input row."""
    document = manifest(1, **members)
    table = np.arange(size_mb * 1024, dtype=np.float32)[:, None] + np.zeros(256, np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=7),
        helper.make_node("Mod", ["whole", "count"], ["row"]),
        helper.make_node("Gather", ["table", "row"], ["picked"]),
        helper.make_node("ReduceMean", ["picked"], ["mean"], axes=[2], keepdims=0),
        helper.make_node("Add", ["mean", "b"], ["y"]),
    ]
    made = model(
        nodes,
        [tensor("x", "f4", ["n", 1])],
        [tensor("y", "f4", ["n", 1])],
        [
            constant("table", table),
            constant("count", len(table), "int64"),
            constant("b", bias),
        ],
    )
    return write(folder, made, document, {"x": np.arange(SAMPLES, dtype=np.float32)[:, None]})


def slow(folder: Path, *, ms: float, **members: Any) -> Path:
    """x [n, 8] -> y [n, 1] in at least `ms` on this machine, for one row as for many: a loop whose
    turns cost more than what they compute.
    """
    feed = {"x": rows(8)}
    turns = round(TURNS * ms / quickest_ms(_turning(TURNS), feed))
    return write(folder, _turning(turns), manifest(8, **members), feed)


def _turning(turns: int) -> onnx.ModelProto:
    """y is one column of x after `turns` of a rotation and a squash."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still"]),
            helper.make_node("MatMul", ["h", "w"], ["turned"]),
            helper.make_node("Tanh", ["turned"], ["next"]),
        ],
        "turn",
        [tensor("i", "i8", []), tensor("on", "bool", []), tensor("h", "f4", ["n", 8])],
        [tensor("still", "bool", []), tensor("next", "f4", ["n", 8])],
    )
    nodes = [
        helper.make_node("Loop", ["turns", "yes", "x"], ["last"], body=body),
        helper.make_node("ReduceMean", ["last"], ["y"], axes=[1], keepdims=1),
    ]
    constants = [
        constant("w", np.roll(np.eye(8), 1, axis=1)),
        constant("turns", turns, "int64"),
        constant("yes", True, "bool"),
    ]
    inputs, outputs = [tensor("x", "f4", ["n", 8])], [tensor("y", "f4", ["n", 1])]
    return model(nodes, inputs, outputs, constants)


def with_golden(folder: Path, feed: dict[str, np.ndarray], **shift: float) -> Path:
    """Records the golden samples anew; `shift` moves wanted outputs: `with_golden(f, x, y=1)`."""
    want = reference(folder / "model.onnx", feed)
    record(folder, feed, {k: v + shift.get(k, 0) for k, v in want.items()})
    return folder
