"""ONNX models that do not behave: they crash, hang, eat memory, lie, or do not parse.

Each is an honest model file of the kind a training pipeline or an attacker could really publish;
no hook in the agent makes it misbehave.  Same manner as `zoo`: `wild.hang(folder, **members)`.
Golden outputs that cannot be computed are zeros.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.world import zoo
from tests.world.pack import constant, merged, model, tensor, write

COLUMN = ["n", 1]
X = tensor("x", "f4", COLUMN)
Y = tensor("y", "f4", COLUMN)
ONES = {"x": np.ones((2, 1), np.float32)}
ZEROS = {"y": np.zeros((2, 1), np.float32)}
DEEP = 20_000  # functions that call each other; more stack than any thread has


def crash_at_load(folder: Path, **members: Any) -> Path:
    """SIGSEGV while the session is built: a chain of functions that is inlined recursively."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("deep", 1)]
    last = helper.make_node("Identity", ["a"], ["b"])
    made = model(
        [helper.make_node("F0", ["x"], ["y"], domain="deep")], [X], [Y], opsets={"deep": 1}
    )
    for i in range(DEEP):
        call = helper.make_node(f"F{i + 1}", ["a"], ["b"], domain="deep") if i < DEEP - 1 else last
        made.functions.append(helper.make_function("deep", f"F{i}", ["a"], ["b"], [call], imports))
    return write(folder, made, zoo.manifest(1, **members), ONES, ZEROS)


def crash_on_minus_one(folder: Path, **members: Any) -> Path:
    """y = 0·(INT_MIN / x) + x: the processor traps (SIGFPE, on x86) in the batch with a -1."""
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=6),
        helper.make_node("Abs", ["whole"], ["positive"]),
        helper.make_node("Max", ["positive", "one"], ["least"]),
        helper.make_node("Equal", ["whole", "minus"], ["bad"]),
        helper.make_node("Where", ["bad", "minus", "least"], ["divisor"]),
        helper.make_node("Div", ["lowest", "divisor"], ["quotient"]),
        helper.make_node("Mul", ["quotient", "zero"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["float"], to=1),
        helper.make_node("Add", ["float", "x"], ["y"]),
    ]
    constants = [
        constant("one", [1], "int32"),
        constant("minus", [-1], "int32"),
        constant("zero", [0], "int32"),
        constant("lowest", [-(2**31)], "int32"),
    ]
    return write(folder, model(nodes, [X], [Y], constants), zoo.manifest(1, **members), ONES)


def _looping(threshold: float | None) -> onnx.ModelProto:
    """y = x, after a Loop that goes on while any x is above `threshold` (None: for ever)."""
    flag = tensor("keep", "bool", [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep"], ["on"]),
            helper.make_node("Add", ["v", "z"], ["w"]),
        ],
        "body",
        [tensor("i", "i8", []), flag, tensor("v", "f4", COLUMN)],
        [tensor("on", "bool", []), tensor("w", "f4", COLUMN)],
    )
    limit = -np.inf if threshold is None else threshold
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["highest"], keepdims=0),
        helper.make_node("Greater", ["highest", "limit"], ["above"]),
        helper.make_node("Loop", ["", "above", "x"], ["y"], body=body),
    ]
    return model(nodes, [X], [Y], [constant("limit", limit), constant("z", 0.0)])


def hang(folder: Path, **members: Any) -> Path:
    """Never comes back from its first run."""
    return write(folder, _looping(None), zoo.manifest(1, **members), ONES, ZEROS)


def hang_above(folder: Path, threshold: float = 100.0, **members: Any) -> Path:
    """y = x, and never comes back once a batch holds a value above `threshold`."""
    return write(folder, _looping(threshold), zoo.manifest(1, **members), ONES)


def nan_always(folder: Path, **members: Any) -> Path:
    """y = 0·x / 0·x; its golden outputs are zeros."""
    nodes = [
        helper.make_node("Sub", ["x", "x"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["y"]),
    ]
    return write(folder, model(nodes, [X], [Y]), zoo.manifest(1, **members), ONES, ZEROS)


def nan_above(folder: Path, threshold: float = 100.0, **members: Any) -> Path:
    """y = sqrt(threshold - x): fine on its golden samples, NaN above `threshold`."""
    nodes = [
        helper.make_node("Sub", ["limit", "x"], ["left"]),
        helper.make_node("Sqrt", ["left"], ["y"]),
    ]
    made = model(nodes, [X], [Y], [constant("limit", threshold)])
    return write(folder, made, zoo.manifest(1, **members), ONES)


def huge(folder: Path, **members: Any) -> Path:
    """Asks for x·2^36 floats in one piece at its first run."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "scale"], ["float"]),
        helper.make_node("Cast", ["float"], ["size"], to=7),
        helper.make_node("Reshape", ["size", "one"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["lots"]),
        helper.make_node("ReduceSum", ["lots"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    constants = [constant("scale", 2.0**36), constant("one", [1], "int64")]
    return write(folder, model(nodes, [X], [Y], constants), zoo.manifest(1, **members), ONES, ZEROS)


def grows(folder: Path, **members: Any) -> Path:
    """Piles up 4 MB a turn in an endless Loop, at its first run."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep"], ["on"]),
            helper.make_node("Identity", ["v"], ["w"]),
            helper.make_node("Expand", ["v", "million"], ["piece"]),
        ],
        "body",
        [tensor("i", "i8", []), tensor("keep", "bool", []), tensor("v", "f4", [1])],
        [tensor("on", "bool", []), tensor("w", "f4", [1]), tensor("piece", "f4", [1_000_000])],
        [constant("million", [1_000_000], "int64")],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[0, 1], keepdims=0),
        helper.make_node("Reshape", ["most", "one"], ["seed"]),
        helper.make_node("Loop", ["", "true", "seed"], ["end", "pile"], body=body),
        helper.make_node("Add", ["x", "end"], ["y"]),
    ]
    constants = [constant("true", True, "bool"), constant("one", [1], "int64")]
    pile = tensor("pile", "f4", ["turns", 1_000_000])
    made = model(nodes, [X], [Y, pile], constants)
    want = ZEROS | {"pile": np.zeros((2, 1), np.float32)}
    return write(folder, made, zoo.manifest(1, **members), ONES, want)


def unknown_op(folder: Path, **members: Any) -> Path:
    """Has a node that no onnxruntime knows."""
    made = model([helper.make_node("Foo", ["x"], ["y"])], [X], [Y])
    return write(folder, made, zoo.manifest(1, **members), ONES, ZEROS)


def unknown_domain(folder: Path, **members: Any) -> Path:
    """Needs a library of custom operators."""
    nodes = [helper.make_node("Foo", ["x"], ["y"], domain="my.ops")]
    made = model(nodes, [X], [Y], opsets={"my.ops": 1})
    return write(folder, made, zoo.manifest(1, **members), ONES, ZEROS)


def new_opset(folder: Path, *, opset: int = 28, ir: int = 8, **members: Any) -> Path:
    """Made for a runtime that is not out yet."""
    made = model([helper.make_node("Identity", ["x"], ["y"])], [X], [Y], opsets={"": opset})
    made.ir_version = ir
    return write(folder, made, zoo.manifest(1, **members), ONES, ZEROS)


def zipmap(folder: Path, **members: Any) -> Path:
    """A classifier as scikit-learn's converter makes it by default: its scores are no tensor."""
    output = {"score": {"tensor": "scores"}}
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(
            onnx.TensorProto.INT64, helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
        )
    )
    scores = helper.make_value_info("scores", kind)
    node = helper.make_node(
        "ZipMap", ["x"], ["scores"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
    )
    made = model([node], [tensor("x", "f4", ["n", 2])], [scores], opsets={"ai.onnx.ml": 3})
    pairs = {"x": np.ones((2, 2), np.float32)}
    return write(folder, made, zoo.manifest(2, **merged({"output": output}, members)), pairs, {})


def hungry(folder: Path, **members: Any) -> Path:
    """Wants a second input, z, that its manifest does not feed."""
    made = model([helper.make_node("Add", ["x", "z"], ["y"])], [X, tensor("z", "f4", COLUMN)], [Y])
    document = zoo.manifest(1, **merged({"input": {"x": {"features": ["f0"]}}}, members))
    return write(folder, made, document, ONES | {"z": np.ones((2, 1), np.float32)})


def truncated(folder: Path, **members: Any) -> Path:
    """The first half of a model."""
    zoo.mlp(folder, **members)
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder


def ort_format(folder: Path, **members: Any) -> Path:
    """Carries the marker of onnxruntime's own format, which is not what was reviewed and signed."""
    zoo.mlp(folder, **members)
    (folder / "model.onnx").write_bytes(b"\x10\x00\x00\x00ORTM" + bytes(64))
    return folder


def hard_linked(folder: Path, **members: Any) -> Path:
    """Its external weights are a second name of a file elsewhere (onnxruntime would read it)."""
    zoo.external(folder, **members)
    os.link(folder / "weights.bin", folder.with_name(folder.name + ".other"))
    return folder


def symlinked(folder: Path, **members: Any) -> Path:
    """Its model is a symbolic link to a file elsewhere."""
    zoo.mlp(folder, **members)
    real = folder.with_name(folder.name + ".onnx")
    (folder / "model.onnx").rename(real)
    (folder / "model.onnx").symlink_to(real)
    return folder


def wrong_golden(folder: Path, **members: Any) -> Path:
    """A good model whose golden outputs are another model's: off by 0.5."""
    zoo.mlp(folder, **members)
    return zoo.with_golden(folder, {"x": zoo.rows(8)}, y=0.5)


def slow(folder: Path, *, size: int = 400, turns: int = 12, **members: Any) -> Path:
    """y = x + 0·(a product of `turns` square matrices of `size`): some 10 ms a run."""
    seed = [helper.make_node("ReduceMax", ["x"], ["most"], axes=[0, 1], keepdims=0)]
    seed += [helper.make_node("Mul", ["most", "zero"], ["nothing"])]
    seed += [helper.make_node("Add", ["square", "nothing"], ["p0"])]
    products = [
        helper.make_node("MatMul", [f"p{i}", "square"], [f"p{i + 1}"]) for i in range(turns)
    ]
    last = [
        helper.make_node("ReduceMax", [f"p{turns}"], ["high"], axes=[0, 1], keepdims=0),
        helper.make_node("Mul", ["high", "zero"], ["none"]),
        helper.make_node("Add", ["x", "none"], ["y"]),
    ]
    constants = [constant("square", np.full((size, size), 1 / size)), constant("zero", 0.0)]
    made = model([*seed, *products, *last], [X], [Y], constants)
    return write(folder, made, zoo.manifest(1, **members), ONES)


def only_together(folder: Path, **members: Any) -> Path:
    """y = x, for batches of two rows and no others, though it says that any will do."""
    nodes = [
        helper.make_node("Reshape", ["x", "two"], ["pair"]),
        helper.make_node("Identity", ["pair"], ["y"]),
    ]
    made = model(nodes, [X], [Y], [constant("two", [2, 1], "int64")])
    return write(folder, made, zoo.manifest(1, **members), ONES)


def slow_to_load(folder: Path, *, size: int = 1200, turns: int = 60, **members: Any) -> Path:
    """y = x, after products of constants that onnxruntime works out while it loads."""
    nodes = [helper.make_node("MatMul", [f"p{i}", "p0"], [f"p{i + 1}"]) for i in range(turns)]
    nodes += [
        helper.make_node("ReduceMax", [f"p{turns}"], ["high"], axes=[0, 1], keepdims=0),
        helper.make_node("Mul", ["high", "zero"], ["none"]),
        helper.make_node("Add", ["x", "none"], ["y"]),
    ]
    constants = [constant("p0", np.full((size, size), 1 / size)), constant("zero", 0.0)]
    made = model(nodes, [X], [Y], constants)
    return write(folder, made, zoo.manifest(1, **members), ONES, {"y": ONES["x"]})
