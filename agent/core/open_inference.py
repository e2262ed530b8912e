"""The documents of the Open Inference Protocol, version 2, for models asked by their features.

Each feature is an input of its own, of the shape [n] or [n, 1], as data frames are sent; the answer
is the columns of a score message: `score`, and `label` and `alarm` where the manifest names them.
Tensors come as JSON or, as Triton's clients send them, as bytes behind it; answers are JSON, which
those clients read as well.  No server: who asks whom is not known here.

Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md, and
Triton's extension_binary_data.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.core.errors import RefusedError
from agent.core.scores import Known, ScoreColumns
from agent.core.strict import read_object

PLATFORM = "onnx_onnxv1"
BYTES_MAX = 2**20  # of a request
WHAT = "the request"
_DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_DATATYPES = {"float32": "FP32", "float64": "FP64"}

Inputs = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.  `ident` is to be echoed; `wanted` are the outputs asked for, all if empty."""

    inputs: Inputs
    ident: str | None = None
    wanted: tuple[str, ...] = ()


def read_request(body: bytes, json_bytes: int | None = None) -> Asked:
    """`json_bytes`: how many of `body` are JSON, where tensors follow it; None: all.

    Raises RefusedError.
    """
    if json_bytes is not None and not 0 <= json_bytes <= len(body):
        raise RefusedError(f"{WHAT} has {len(body)} bytes, not {json_bytes} of JSON")
    document = read_object(body[:json_bytes], WHAT, bytes_max=BYTES_MAX)
    ident = document.get("id")
    if ident is not None and not isinstance(ident, str):
        raise RefusedError(f"{WHAT}: id is a string")
    tensors = _objects(document, "inputs")
    if not tensors:
        raise RefusedError(f"{WHAT}: inputs is a list of one tensor for each feature")
    rest = memoryview(b"" if json_bytes is None else body[json_bytes:])
    inputs: dict[str, NDArray[np.float64]] = {}
    for tensor in tensors:
        name = tensor["name"]
        if name in inputs:
            raise RefusedError(f"{WHAT}: the input {name} is there twice")
        inputs[name], rest = _column(tensor, rest)
    if rest:
        raise RefusedError(f"{WHAT}: {len(rest)} bytes behind the last tensor belong to none")
    return Asked(inputs, ident, tuple(one["name"] for one in _objects(document, "outputs")))


def answer(model: str, release: int, asked: Asked, columns: ScoreColumns) -> dict[str, Any]:
    """The response; a score that is no number is null.

    Raises:
        RefusedError: an output is wanted that this version does not give.
    """
    score = columns.score
    numbers = score.astype(object)
    numbers[~np.isfinite(score)] = None
    datatype = _DATATYPES[score.dtype.name]
    given = {"score": _tensor("score", datatype, list(score.shape), numbers.ravel().tolist())}
    for name, kind, values in (("label", "BYTES", columns.label), ("alarm", "BOOL", columns.alarm)):
        if values is not None:
            given[name] = _tensor(name, kind, [len(values)], values)
    for name in asked.wanted:
        if name not in given:
            raise RefusedError(f"{model} gives {', '.join(given)}, and no {name}")
    document: dict[str, Any] = {"model_name": model, "model_version": str(release)}
    if asked.ident is not None:
        document["id"] = asked.ident
    return document | {"outputs": [given[name] for name in asked.wanted or given]}


def metadata(model: str, known: Known) -> dict[str, Any]:
    """What the version wants and gives; -1 is any number of rows."""
    kinds = {"score": _DATATYPES[known.dtype], "label": "BYTES", "alarm": "BOOL"}
    shapes = {"score": [-1] if known.width == 1 else [-1, known.width]}
    return {
        "name": model,
        "versions": [str(known.release)],
        "platform": PLATFORM,
        "inputs": [{"name": name, "datatype": "FP64", "shape": [-1]} for name in known.features],
        "outputs": [
            {"name": name, "datatype": kinds[name], "shape": shapes.get(name, [-1])}
            for name in known.outputs
        ],
    }


def _tensor(name: str, datatype: str, shape: list[int], data: Sequence[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _objects(document: Mapping[str, Any], member: str) -> list[Mapping[str, Any]]:
    listed = document.get(member, [])
    if not isinstance(listed, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in listed
    ):
        raise RefusedError(f"{WHAT}: {member} is a list of objects, each with its name")
    return listed


def _column(tensor: Mapping[str, Any], rest: memoryview) -> tuple[NDArray[np.float64], memoryview]:
    """The numbers of one input, and what follows them of the bytes."""
    name, datatype, shape = tensor["name"], tensor.get("datatype"), tensor.get("shape")
    if not isinstance(datatype, str) or datatype not in _DTYPES:
        known = ", ".join(_DTYPES)
        raise RefusedError(f"{WHAT}: {name} is of no datatype that a feature may have: {known}")
    dtype = np.dtype(_DTYPES[datatype])
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        values = _numbers(name, tensor.get("data"))
        if not _are(values, dtype):
            raise RefusedError(f"{WHAT}: {name} has a number that is no {datatype}")
    else:
        if type(size) is not int or not 0 <= size <= len(rest) or size % dtype.itemsize:
            raise RefusedError(f"{WHAT}: {name} has no {size} bytes of {datatype} behind it")
        values = np.frombuffer(rest[:size], dtype).astype(np.float64)
        rest = rest[size:]
    n = len(values)
    whole = isinstance(shape, list) and all(type(axis) is int for axis in shape)
    if not whole or shape not in ([n], [n, 1]):
        raise RefusedError(
            f"{WHAT}: {name} has {n} numbers and the shape {shape}; a feature has [n]"
        )
    return values, rest


def _are(values: NDArray[np.float64], dtype: np.dtype[Any]) -> bool:
    """Whether `dtype` can say them; rounding is what floats are for."""
    with np.errstate(invalid="ignore", over="ignore"):
        said = values.astype(dtype).astype(np.float64)
    if dtype.kind == "f":
        return bool(np.array_equal(np.isfinite(said), np.isfinite(values)))
    return bool(np.array_equal(said, values))


def _numbers(name: str, data: object) -> NDArray[np.float64]:
    """A flat list, or one of lists of one; null is a value that is missing."""
    rows = data if isinstance(data, list) else [data]
    if any(isinstance(row, list) for row in rows):
        rows = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows]
    if not isinstance(data, list) or not all(
        value is None or isinstance(value, int | float) for value in rows
    ):
        raise RefusedError(f"{WHAT}: the data of {name} are no list of numbers")
    try:
        return np.array(rows, np.float64)
    except OverflowError as error:
        raise RefusedError(f"{WHAT}: a number of {name} is too large") from error
