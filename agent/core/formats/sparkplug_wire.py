"""Sparkplug B payloads as protobuf has them: parsed by Google's library, one message at a time.

Only what is read is declared.  Properties, metadata, data sets and templates stay unparsed bytes,
so nothing nests.  What is absent reads as a value that is dealt with slowly, which spares the
common metric the question whether it is there.  Imported only where a stream speaks Sparkplug.
"""

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from agent.core.errors import UnfitError
from agent.core.formats.records import RejectError
from agent.core.protobuf import Walk

METRICS_MAX = 16_384  # in one payload
ABSENT = 2**64 - 1  # an integer that is not there, or happens to be this
_SMALL_BYTES = 64 * 1024  # cannot hold so many that parsing it would take much memory
_METRICS = 2  # field of Payload

_FIELD = descriptor_pb2.FieldDescriptorProto
_INTEGER = _FIELD.TYPE_UINT64, str(ABSENT)
_TRUTH = _FIELD.TYPE_BOOL, "false"
_PAYLOAD = {"timestamp": (1, *_INTEGER), "seq": (3, *_INTEGER)}
_METRIC = {
    "name": (1, _FIELD.TYPE_BYTES, ""),  # whatever its characters are
    "alias": (2, *_INTEGER),
    "timestamp": (3, *_INTEGER),
    "datatype": (4, _FIELD.TYPE_UINT32, "0"),
    "is_historical": (5, *_TRUTH),
    "is_null": (7, *_TRUTH),
    "int_value": (10, *_INTEGER),
    "long_value": (11, *_INTEGER),
    "float_value": (12, _FIELD.TYPE_FLOAT, "nan"),
    "double_value": (13, _FIELD.TYPE_DOUBLE, "nan"),
    "boolean_value": (14, *_INTEGER),
}

TYPES = (
    *("Unknown", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
    *("Float", "Double", "Boolean", "String", "DateTime", "Text", "UUID", "DataSet", "Bytes"),
    *("File", "Template"),
)
_BITS = {1: 8, 2: 16, 3: 32, 4: 64, 5: 8, 6: 16, 7: 32, 8: 64, 13: 64}
_SIGNED = (1, 2, 3, 4)
_REALS = (9, 10)
_BOOLEAN = 11
NUMBERS = frozenset({*_BITS, *_REALS, _BOOLEAN})

Metric = Any  # made at run time: see `_METRIC`
Payload = Any


def _declared() -> Callable[[bytes], Payload]:
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug", package="sparkplug")
    for name, fields in (("Metric", _METRIC), ("Payload", _PAYLOAD)):
        message = file.message_type.add(name=name)
        for field, (number, kind, default) in fields.items():
            message.field.add(
                name=field,
                number=number,
                type=kind,
                label=_FIELD.LABEL_OPTIONAL,
                default_value=default,
            )
    message.field.add(
        name="metrics",
        number=_METRICS,
        type=_FIELD.TYPE_MESSAGE,
        label=_FIELD.LABEL_REPEATED,
        type_name=".sparkplug.Metric",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("sparkplug.Payload"))
    return made.FromString  # type: ignore[no-any-return]


_parse = _declared()


def parse(raw: bytes) -> Payload:
    """The payload in `raw`: `timestamp`, `seq` and `metrics`.  Raises RejectError."""
    try:
        if len(raw) > _SMALL_BYTES:
            _count(raw)
        payload = _parse(raw)
    except (DecodeError, UnfitError) as error:
        raise RejectError("malformed", "the payload is no Sparkplug B") from error
    if len(payload.metrics) > METRICS_MAX:
        raise RejectError("malformed", _TOO_MANY)
    return payload


_TOO_MANY = f"a payload has more than {METRICS_MAX} metrics"


def _count(raw: bytes) -> None:
    """A metric of two bytes takes a hundred once parsed, so many of them are not."""
    count = 0
    for number, *_ in Walk().fields(memoryview(raw)):
        count += number == _METRICS
        if count > METRICS_MAX:
            raise RejectError("malformed", _TOO_MANY)


def kind_of(datatype: int) -> str:
    """What a type is called."""
    return TYPES[datatype] if 0 < datatype < len(TYPES) else f"number {datatype}"


def quick(datatype: int) -> Callable[[Metric], float]:
    """Reads a value of this type; NaN where `value` has to look."""
    if datatype in _REALS:
        return attrgetter("float_value" if datatype == 9 else "double_value")
    if datatype not in _BITS:
        return _nothing
    read = attrgetter("long_value" if _BITS[datatype] == 64 else "int_value")
    most = 2 ** (_BITS[datatype] - 1)  # below, nothing is negative, nor too large, nor absent

    def small(metric: Metric) -> float:
        found = read(metric)
        return float(found) if found < most else math.nan

    return small


def _nothing(_: Metric) -> float:
    return math.nan


def value(metric: Metric, datatype: int) -> float:
    """The value, whose type is one of NUMBERS; NaN for null.  Raises RejectError."""
    if metric.is_null:
        return math.nan
    if datatype in _REALS:
        found = _first(metric, ("float_value", "double_value"), datatype)
        if not math.isfinite(found):
            raise RejectError("not_finite", "is no finite number")
        return float(found)
    if datatype == _BOOLEAN:
        return float(_first(metric, ("boolean_value",), datatype) != 0)
    return float(_integer(_first(metric, ("int_value", "long_value"), datatype), datatype))


def _first(metric: Metric, fields: tuple[str, ...], datatype: int) -> float | int:
    """Of an integer the narrow or the wide field, of a real likewise: encoders differ."""
    for field in fields:
        if metric.HasField(field):
            return getattr(metric, field)  # type: ignore[no-any-return]
    raise RejectError("type", f"has no value of its type, {kind_of(datatype)}")


def _integer(found: float, datatype: int) -> int:
    """Two's complement, in the width of the type or in that of the field."""
    bits = _BITS[datatype]
    low = int(found) & ((1 << bits) - 1)
    meant = low - (1 << bits) if datatype in _SIGNED and low >> (bits - 1) else low
    if found != low and (int(found) - meant) % 2**32:
        raise RejectError("type", f"has a value too large for its type, {kind_of(datatype)}")
    return meant
