"""The protobuf wire format, walked field by field, without a schema and without trust.

Bounded in fields; it copies nothing.  Groups, which nobody has written for fifteen years, are taken
for damage.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent.core.errors import UnfitError

FIELDS_MAX = 5_000_000  # about three seconds of walking

VARINT, I64, LEN, I32 = 0, 1, 2, 5
# Attributes of tree ensembles hold millions of numbers, one field each: skipped at C speed.
_FLOATS = re.compile(rb"(?:\x3d[\s\S]{4})+")  # AttributeProto.floats = 7, fixed32
_INTS = re.compile(rb"(?:\x40[\x80-\xff]{0,9}[\x00-\x7f])+")  # AttributeProto.ints = 8, varint
_BROKEN = "the file is truncated, or no ONNX model"

Buffer = bytes | memoryview


@dataclass(slots=True)
class Walk:
    """One walk over one file.  `seen` is how many fields it has met."""

    seen: int = 0

    def fields(
        self, view: memoryview, *, skip_numbers: bool = False
    ) -> Iterator[tuple[int, int, int, memoryview]]:
        """Number, wire type, integer (varints only) and bytes (length-delimited only) of each.

        `skip_numbers`: pass over the numbers of an ONNX attribute.

        Raises:
            UnfitError: it is no protobuf, or more of it than FIELDS_MAX.
        """
        at, end, nothing = 0, len(view), view[:0]
        while at < end:
            if skip_numbers and view[at] in (0x3D, 0x40):
                run = (_FLOATS if view[at] == 0x3D else _INTS).match(view, at)
                if run is not None:
                    at = run.end()
                    continue
            self.seen += 1
            if self.seen > FIELDS_MAX:
                raise UnfitError(f"the model has more than {FIELDS_MAX} fields")
            tag, at = varint(view, at, end)
            number, kind = tag >> 3, tag & 7
            value, part = 0, nothing
            if kind == VARINT:
                value, at = varint(view, at, end)
            elif kind == LEN:
                length, at = varint(view, at, end)
                part, at = view[at : at + length], at + length
            elif kind in (I64, I32):
                at += 8 if kind == I64 else 4
            else:
                raise UnfitError("the file is no ONNX model: a field has an unknown wire type")
            if at > end or number == 0:
                raise UnfitError(_BROKEN)
            yield number, kind, value, part


def varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """The integer at `at`, and where the next thing begins."""
    value = shift = 0
    while at < end and shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise UnfitError(_BROKEN)


def varints(view: memoryview, most: int) -> list[int]:
    """Packed integers, at most `most` of them.

    Raises:
        UnfitError: they are more, or no integers.
    """
    values, at = [], 0
    while at < len(view):
        value, at = varint(view, at, len(view))
        values.append(value)
        if len(values) > most:
            raise UnfitError(f"the model has a list of more than {most} sizes")
    return values
