"""Arrays as bytes and back: how the data path's state survives a restart."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.core.errors import RefusedError

Array = NDArray[Any]
_KINDS = frozenset("biuf")


def pack(arrays: Mapping[str, Array], about: str) -> bytes:
    """`arrays` as bytes; `about` says what they are of, and must be said again to unpack them."""
    parts = {
        name: (array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes())
        for name, array in arrays.items()
    }
    return msgspec.msgpack.encode((about, parts))


def unpack(raw: bytes, about: str) -> dict[str, Array]:
    """The arrays in `raw`, writable.

    Raises:
        RefusedError: `raw` was not packed by `pack`, or is about something else.
    """
    form = tuple[str, dict[str, tuple[str, tuple[int, ...], bytes]]]
    try:
        packed_about, parts = msgspec.msgpack.decode(raw, type=form)
        if packed_about != about:
            raise RefusedError(f"the state is of {packed_about}, not of {about}")
        return {name: _array(*part) for name, part in parts.items()}
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise RefusedError(f"the state cannot be read: {error}") from error


def _array(kind: str, shape: tuple[int, ...], raw: bytes) -> Array:
    dtype = np.dtype(kind)
    if dtype.kind not in _KINDS:
        msg = f"{kind} is no number"
        raise ValueError(msg)
    return np.frombuffer(raw, dtype).reshape(shape).copy()


def grown(array: Array, rows: int, fill: float = 0) -> Array:
    """`array` with at least `rows` rows, new ones filled with `fill`; itself if it has them.

    It grows by half, so that adding sensors one by one costs little.
    """
    if len(array) >= rows:
        return array
    size = max(rows, len(array) + len(array) // 2, 16)
    larger = np.zeros((size, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    if fill != 0:
        larger[len(array) :] = fill
    return larger


def total(array: Array) -> float:
    """The sum of all of it, to be told at one look whether all are finite, or none is NaN.

    If the sum is finite, so are all; if it is no NaN, none is.  The converse does not hold.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.add.reduce(array, axis=None))
