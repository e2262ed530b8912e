"""Jobs and answers on the data socket: a small binary head, and tensors in the arena.

    frame    head | tensor entry × tensors | text or tensor bytes
    head     length of the whole frame, kind, tensors, job, and a number whose sense is the kind's
    entry    dtype code, dimensions, item size, offset in the arena, then one int64 per dimension

A lane sends the same shapes for hours, so both sides keep the entries of the last frame, and the
arrays they describe, and compare bytes instead of building them anew.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError  # noqa: N812  struct gave it the name of a variable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

HEAD = Struct("<IBxHqQ")
ENTRY = Struct("<BBxxIQ")
FRAME_BYTES_MAX = 1 << 26  # of one frame; tensors in the arena do not count
TENSORS_MAX = 65535
ALIGNMENT = 64

# Kinds of frame.  To the worker:
RUN = 1  # tensors are the inputs; the number is where their slot ends
ECHO = 2  # the text comes back as the error of this job, in its turn
GREW = 3  # the number is the arena's new size; the text is its tag, where it has one
# From the worker (the number is what the run took, in nanoseconds):
ANSWER = 4  # tensors are the outputs
INLINE = 5  # the same, but their bytes follow in the frame; offsets count from the body's start
FAILED = 6  # text says why

STRING = 255  # numpy's fixed-width unicode; the item size says how wide
_DTYPES = (
    *("float32", "float64", "float16", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128"),
)
_CODES = {np.dtype(name): code for code, name in enumerate(_DTYPES)}
_BY_CODE = dict(enumerate(map(np.dtype, _DTYPES)))


class BreachError(Exception):
    """The other side sent something that no honest side sends."""


@dataclass(slots=True)
class Frame:
    """One frame, taken apart as far as its head; `body` is the entries and what follows."""

    kind: int
    tensors: int
    job: int
    number: int
    body: bytes


class Reader:
    """Cuts a stream of bytes into frames."""

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._pending = bytearray()
        self._bytes_max = bytes_max

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that `chunk` completes.

        Raises:
            BreachError: a head makes no sense.
        """
        pending = self._pending
        pending += chunk
        at = 0
        while len(pending) - at >= HEAD.size:
            length, kind, tensors, job, number = HEAD.unpack_from(pending, at)
            if not HEAD.size <= length <= self._bytes_max:
                msg = f"a frame of {length} bytes"
                raise BreachError(msg)
            if len(pending) - at < length:
                break
            body = bytes(pending[at + HEAD.size : at + length])
            at += length
            yield Frame(kind, tensors, job, number, body)
        del pending[:at]


def pack(kind: int, *, job: int = 0, tensors: int = 0, number: int = 0, body: bytes = b"") -> bytes:
    """One frame."""
    return HEAD.pack(HEAD.size + len(body), kind, tensors, job, number) + body


def aligned(offset: int) -> int:
    """The next place where a tensor may begin."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def room(arrays: Sequence[Array]) -> int:
    """Bytes that `arrays` take in the arena."""
    return sum(aligned(array.nbytes) for array in arrays)


def entries(arrays: Sequence[Array], offset: int) -> bytes:
    """The entries of `arrays`, laid one after the other from `offset`.

    Raises:
        TypeError: a dtype that cannot cross.
    """
    parts = []
    for array in arrays:
        code = STRING if array.dtype.kind == "U" else _CODES.get(array.dtype)
        if code is None:
            msg = f"a tensor of {array.dtype} cannot be handed to another process"
            raise TypeError(msg)
        parts.append(ENTRY.pack(code, array.ndim, array.dtype.itemsize, offset))
        parts.append(Struct(f"<{array.ndim}q").pack(*array.shape))
        offset = aligned(offset + array.nbytes)
    return b"".join(parts)


def inline(arrays: Sequence[Array]) -> bytes:
    """The body of an INLINE frame: entries and bytes, for what the arena cannot hold."""
    start = aligned(sum(ENTRY.size + 8 * array.ndim for array in arrays))
    parts = [entries(arrays, start)]
    at = len(parts[0])
    for array in arrays:
        parts += [bytes(start - at), array.tobytes()]
        at = start + array.nbytes
        start = aligned(at)
    return b"".join(parts)


def views(
    body: bytes, tensors: int, memory: Any, low: int = 0, high: int | None = None
) -> tuple[list[Array], int]:
    """The arrays that the entries in `body` describe over `memory`, and where more could begin.

    `low` and `high` bound the part of `memory` in which every array must lie.

    Raises:
        BreachError: an entry points outside, or makes no sense.
    """
    high = len(memory) if high is None else high
    arrays, at, end = [], 0, low
    try:
        for _ in range(tensors):
            code, dimensions, width, offset = ENTRY.unpack_from(body, at)
            at += ENTRY.size
            shape = Struct(f"<{dimensions}q").unpack_from(body, at)
            at += 8 * dimensions
            dtype = np.dtype(f"<U{width // 4}") if code == STRING else _BY_CODE[code]
            size = math.prod(shape, start=dtype.itemsize)  # exact: Python's integers do not wrap
            if min(shape, default=0) < 0 or not low <= offset <= offset + size <= high:
                msg = f"a tensor of shape {shape} that does not lie in its place"
                raise BreachError(msg)
            arrays.append(np.ndarray(shape, dtype, memory, offset))
            end = max(end, aligned(offset + size))
    except (StructError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        msg = f"a tensor entry that makes no sense: {error}"
        raise BreachError(msg) from error
    return arrays, end
