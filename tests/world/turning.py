"""Models that pass preflight and turn bad later: each counts, by sensor, how often it was asked.

All say y = x until then; their golden samples are of the first call.  The count is a state of its
own name, so that no version goes on where another has stopped.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.world import zoo
from tests.world.pack import constant, merged, model, tensor, write

COLUMN = ["n", 1]
GOLDEN = {"x": np.array([[0.25], [-0.5]], np.float32)}


def counting(folder: Path, *, state: str = "kept", **members: Any) -> Path:
    """y = x, for ever."""
    return _made(folder, state, [helper.make_node("Identity", ["x"], ["y"])], (), members)


def nan_after(folder: Path, *, calls: int, state: str = "calls", **members: Any) -> Path:
    """y is no number from call `calls` of a sensor on."""
    nodes = [
        helper.make_node("Greater", ["count", "limit"], ["late"]),
        helper.make_node("Where", ["late", "nan", "x"], ["y"]),
    ]
    return _made(folder, state, nodes, [constant("nan", np.nan), _limit(calls)], members)


def drifting_after(
    folder: Path, *, calls: int, step: float = 0.05, state: str = "calls", **members: Any
) -> Path:
    """y = x + `step` for each call after `calls`."""
    nodes = [
        helper.make_node("Sub", ["count", "limit"], ["over"]),
        helper.make_node("Relu", ["over"], ["late"]),
        helper.make_node("Mul", ["late", "step"], ["drift"]),
        helper.make_node("Add", ["x", "drift"], ["y"]),
    ]
    return _made(folder, state, nodes, [constant("step", step), _limit(calls)], members)


def slow_after(
    folder: Path, *, calls: int, turns: int = 40, state: str = "calls", **members: Any
) -> Path:
    """y = x, through `turns` products of matrices of 400 by 400 once some sensor is past `calls`:
    about a millisecond each.
    """
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep"], ["on"]),
            helper.make_node("MatMul", ["v", "square"], ["w"]),
        ],
        "body",
        [tensor("i", "i8", []), tensor("keep", "bool", []), tensor("v", "f4", [400, 400])],
        [tensor("on", "bool", []), tensor("w", "f4", [400, 400])],
    )
    nodes = [
        *_any_late(),
        helper.make_node("Cast", ["any"], ["times"], to=onnx.TensorProto.INT64),
        helper.make_node("Mul", ["times", "turns"], ["trips"]),
        helper.make_node("Loop", ["trips", "", "square"], ["product"], body=body),
        helper.make_node("ReduceMax", ["product"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    constants = [
        constant("square", np.full((400, 400), 1 / 400)),
        constant("turns", turns, "int64"),
        constant("zero", 0.0),
        _limit(calls),
    ]
    return _made(folder, state, nodes, constants, members)


def hang_after(folder: Path, *, calls: int, state: str = "calls", **members: Any) -> Path:
    """Never comes back from a run in which some sensor is past `calls`."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep"], ["on"]),
            helper.make_node("Identity", ["v"], ["w"]),
        ],
        "body",
        [tensor("i", "i8", []), tensor("keep", "bool", []), tensor("v", "f4", COLUMN)],
        [tensor("on", "bool", []), tensor("w", "f4", COLUMN)],
    )
    nodes = [*_any_late(), helper.make_node("Loop", ["", "any", "x"], ["y"], body=body)]
    return _made(folder, state, nodes, [_limit(calls)], members)


def crash_after(folder: Path, *, calls: int, state: str = "calls", **members: Any) -> Path:
    """Takes its process down in a run in which some sensor is past `calls`: the processor traps
    (SIGFPE, on x86) where the lowest integer is divided by -1.
    """
    nodes = [
        helper.make_node("Greater", ["count", "limit"], ["late"]),
        helper.make_node("Where", ["late", "minus", "one"], ["divisor"]),
        helper.make_node("Div", ["lowest", "divisor"], ["quotient"]),
        helper.make_node("Mul", ["quotient", "zero"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["float", "x"], ["y"]),
    ]
    constants = [
        constant("one", [1], "int32"),
        constant("minus", [-1], "int32"),
        constant("zero", [0], "int32"),
        constant("lowest", [-(2**31)], "int32"),
        _limit(calls),
    ]
    return _made(folder, state, nodes, constants, members)


def leaking_after(
    folder: Path, *, calls: int, step_mb: float = 2.0, state: str = "calls", **members: Any
) -> Path:
    """y = x, in `step_mb` more memory for each call after `calls`: the arena keeps what it had."""
    nodes = [
        helper.make_node("ReduceMax", ["count"], ["most"], keepdims=0),
        helper.make_node("Sub", ["most", "limit"], ["over"]),
        helper.make_node("Relu", ["over"], ["late"]),
        helper.make_node("Mul", ["late", "step"], ["room"]),
        helper.make_node("Cast", ["room"], ["size"], to=onnx.TensorProto.INT64),
        helper.make_node("Reshape", ["size", "one"], ["shape"]),
        helper.make_node("Expand", ["zero", "shape"], ["lots"]),
        helper.make_node("ReduceSum", ["lots"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    constants = [
        constant("step", step_mb * 2**20 / 4),
        constant("one", [1], "int64"),
        constant("zero", [0.0]),
        _limit(calls),
    ]
    return _made(folder, state, nodes, constants, members)


def _limit(calls: int) -> onnx.TensorProto:
    return constant("limit", float(calls))


def _any_late() -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceMax", ["count"], ["most_calls"], keepdims=0),
        helper.make_node("Greater", ["most_calls", "limit"], ["any"]),
    ]


def _made(
    folder: Path,
    state: str,
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto],
    members: dict[str, Any],
) -> Path:
    counted = [
        helper.make_node("Add", [state, "plus"], ["count"]),
        helper.make_node("Identity", ["count"], [f"{state}_out"]),
    ]
    made = model(
        [*counted, *nodes],
        [tensor("x", "f4", COLUMN), tensor(state, "f4", COLUMN)],
        [tensor("y", "f4", COLUMN), tensor(f"{state}_out", "f4", COLUMN)],
        [constant("plus", 1.0), *constants],
    )
    document = zoo.manifest(1, **merged({"state": {state: f"{state}_out"}}, members))
    none = np.zeros_like(GOLDEN["x"])
    return write(folder, made, document, GOLDEN | {state: none})
