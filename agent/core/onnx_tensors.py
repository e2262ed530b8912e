"""What a tensor in an ONNX file claims to be, held against the bytes it really has.

A tensor of a few bytes that says it has 2^80 elements is refused here, before anything allocates
for it.
"""

import math
from dataclasses import dataclass, field

from agent.core.errors import UnfitError
from agent.core.protobuf import LEN, VARINT, Walk, varints

RANK_MAX = 64
DENSE_ELEMENTS_MAX = 2**28  # of a sparse tensor, once it is unfolded

_SIGN = 1 << 63
_NUMBER_CHARS_MAX = 19
_ENTRY_BYTES_MAX = 512
# TensorProto.DataType -> bits of one element; strings, and what is newer than this table, are left
# to onnxruntime.
_BITS = {
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((7, 11, 13, 14), 64),
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
    15: 128,
}
_LEAST_BYTES = {4: 4, 5: 1, 6: 1, 7: 1, 10: 8, 11: 1}  # typed field -> of one element in it
_RAW, _STRINGS = 9, 6


@dataclass(frozen=True, slots=True)
class Outside:
    """Weights in another file: its name as the model writes it, and the byte they end at."""

    location: str
    end: int


@dataclass(slots=True)
class _Tensor:
    dims: list[int] = field(default_factory=list)
    dtype: int = 0
    raw: int | None = None  # bytes
    typed: int = 0  # elements, at most
    is_external: bool = False
    entries: dict[str, str] = field(default_factory=dict)


def checked(view: memoryview, walk: Walk) -> Outside | None:
    """Where the tensor in `view` keeps its weights, if that is another file.

    Raises:
        UnfitError: it claims more elements than it has bytes for, or does not say where they are.
    """
    tensor = _read(view, walk)
    elements = _elements(tensor.dims)
    bits = _BITS.get(tensor.dtype, 0)
    location = tensor.entries.get("location")
    if not tensor.is_external:
        if location is None or tensor.raw is not None or tensor.typed:
            _check_held(tensor, elements, bits)
        return None if location is None else Outside(location, 0)
    if location is None:
        raise UnfitError("the model keeps weights in another file and does not say in which")
    wanted = -(-elements * bits // 8)
    length = _whole(tensor.entries, "length")
    if length is not None and length < wanted:
        raise UnfitError(
            f"a tensor of {_words(tensor.dims)} needs {wanted} bytes and keeps {length} in"
            f" {location[:80]!r}"
        )
    start = _whole(tensor.entries, "offset") or 0
    return Outside(location, start + (wanted if length is None else length))


def check_dense(view: memoryview, walk: Walk) -> None:
    """That the sparse tensor in `view` is no bomb.

    Raises:
        UnfitError: it unfolds to more than DENSE_ELEMENTS_MAX.
    """
    dims: list[int] = []
    for number, kind, value, part in walk.fields(view):
        if number == 3:
            _add_dims(dims, kind, value, part)
    if dims and _elements(dims) > DENSE_ELEMENTS_MAX:
        raise UnfitError(
            f"a sparse tensor of {_words(dims)} unfolds to more than {DENSE_ELEMENTS_MAX} elements"
        )


def _read(view: memoryview, walk: Walk) -> _Tensor:
    tensor = _Tensor()
    for number, kind, value, part in walk.fields(view):
        if number == 1:
            _add_dims(tensor.dims, kind, value, part)
        elif number == 2 and kind == VARINT:
            tensor.dtype = value
        elif number == 14 and kind == VARINT:
            tensor.is_external = value == 1
        elif number == _RAW and kind == LEN:
            tensor.raw = len(part)
        elif number == 13 and kind == LEN:
            entry = {n: bytes(p[:_ENTRY_BYTES_MAX]) for n, k, _, p in walk.fields(part) if k == LEN}
            key = entry.get(1, b"").decode("utf-8", "replace")
            tensor.entries[key] = entry.get(2, b"").decode("utf-8", "replace")
        elif number in _LEAST_BYTES:
            packed = kind == LEN and number != _STRINGS
            tensor.typed += len(part) // _LEAST_BYTES[number] if packed else 1
    return tensor


def _add_dims(dims: list[int], kind: int, value: int, part: memoryview) -> None:
    if kind == VARINT:
        dims.append(value)
    elif kind == LEN:
        dims += varints(part, RANK_MAX)
    if len(dims) > RANK_MAX:
        raise UnfitError(f"the model has a tensor of more than {RANK_MAX} dimensions")


def _elements(dims: list[int]) -> int:
    if any(size >= _SIGN for size in dims):
        raise UnfitError(f"the model has a tensor of {_words(dims)}; no size is below 0")
    return math.prod(dims)


def _check_held(tensor: _Tensor, elements: int, bits: int) -> None:
    if not tensor.dtype and not tensor.dims:  # none at all
        return
    if tensor.raw is not None:
        held = tensor.raw * 8 // bits if bits else tensor.raw * 8
    else:
        held = tensor.typed * (8 // bits if 0 < bits < 8 else 1)
    if elements > held:
        raise UnfitError(
            f"the model has a tensor of {_words(tensor.dims)} with no more than {held} values in it"
        )


def _whole(entries: dict[str, str], key: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > _NUMBER_CHARS_MAX:
        raise UnfitError(f"the model keeps weights at the {key} {text[:40]!r}, which is no number")
    return int(text)


def _words(dims: list[int]) -> str:
    return f"[{', '.join(str(n - (1 << 64) if n >= _SIGN else n) for n in dims[:8])}]"
