"""Readings one by one, out of decoded objects: the slow, plain way.

Formats without a faster way use it for everything; JSON uses it to say why a document was refused.
"""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from agent.core.blocks import Column
from agent.core.formats.plan import Found, Path, Plan, RawKey, Stamp, Tally, check_nesting, parts_of

_EXCERPT_CHARS_MAX = 60
_NUMBERS = frozenset({int, float})
_STAMP_MAX = 1e21  # beyond the year 5138 in nanoseconds; NaN is not below it either


class RejectError(Exception):
    """A reading that cannot become a row."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Repeating(dict[str, Any]):
    """An object in which the names `twice` stood more than once."""

    __slots__ = ("twice",)

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        times = Counter(name for name, _ in pairs)
        self.twice = frozenset(name for name, count in times.items() if count > 1)


def object_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these members; a `Repeating` one if a name comes twice."""
    plain = dict(pairs)
    return plain if len(plain) == len(pairs) else Repeating(pairs)


class Picker:
    """Collects readings from records, in order, into columns."""

    def __init__(self, plan: Plan) -> None:
        """Raises RefusedError if the plan contradicts itself."""
        check_nesting(plan)
        self._fields = [parts_of(path) for path in plan.fields]
        flat = all(len(path) == 1 for path in self._fields)
        self._flat = [path[0] for path in self._fields] if flat else []
        self._time = parts_of(plan.time) if plan.time else None
        self._key = parts_of(plan.key) if plan.key else None
        self.clear()

    def clear(self) -> None:
        """Forget what was collected."""
        self._origin: list[int] = []
        self._rows: list[list[float]] = []
        self._times: list[Stamp] = []
        self._keys: list[RawKey] = []

    def take(self, record: object, origin: int, tally: Tally) -> None:
        """Add one record as a reading, or count why not."""
        try:
            row = self.row(record)
        except RejectError as error:
            tally.reject(error.reason, str(error))
            return
        values, stamp, key = row
        self._origin.append(origin)
        self._rows.append(values)
        self._times.append(stamp)
        self._keys.append(key)

    def row(self, record: object) -> tuple[list[float], Stamp, RawKey]:
        """Values, time and key of `record`.  Raises RejectError."""
        if not isinstance(record, dict):
            raise RejectError("malformed", f"a reading is {told(record)}, not an object")
        values = self._quickly(record)
        if values is None:
            values = [number(member(record, path), path) for path in self._fields]
        stamp = stamp_of(member(record, self._time)) if self._time else None
        key = key_of(member(record, self._key)) if self._key else None
        return values, stamp, key

    def _quickly(self, record: dict[str, Any]) -> list[float] | None:
        """The values of an object that has nothing to look at twice; None for any other."""
        if type(record) is not dict or not self._flat:
            return None
        try:
            values = [record[name] for name in self._flat]
            if _NUMBERS.issuperset(map(type, values)):
                floats = list(map(float, values))
                if math.isfinite(sum(floats)):  # only if each of them is
                    return floats
        except (KeyError, OverflowError):
            pass
        return None

    def found(self) -> Found:
        """What was collected; starts anew."""
        found = Found(
            self._origin,
            columns_of(self._rows, len(self._fields)),
            self._times if self._time else None,
            self._keys if self._key else None,
        )
        self.clear()
        return found


def columns_of(rows: Sequence[Sequence[float]], width: int) -> list[Column]:
    """Rows as `width` contiguous columns."""
    if not rows:
        return [np.empty(0) for _ in range(width)]
    return [np.array(column, np.float64) for column in zip(*rows, strict=True)]


def member(record: dict[str, Any], path: Path) -> object:
    """What stands at `path`; None where nothing does.  Raises RejectError."""
    here: object = record
    for part in path:
        if here is None:
            return None
        if not isinstance(here, dict):
            raise RejectError(
                "type", f"{'.'.join(path)}: {told(here)} stands where an object should"
            )
        if isinstance(here, Repeating) and part in here.twice:
            raise RejectError("duplicate_key", f"{part!r} stands twice in one object")
        here = here.get(part)
    return here


def number(value: object, path: Path) -> float:
    """`value` as a finite float, NaN for None.  Raises RejectError."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RejectError("type", f"{'.'.join(path)} is {told(value)}, not a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise RejectError("not_finite", f"{'.'.join(path)} is no finite number")
    return result


def stamp_of(value: object) -> Stamp:
    """What may stand for a time: a number or text.  Raises RejectError."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime):  # a tagged one, from CBOR
        return value.isoformat()
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _STAMP_MAX:
        return float(value)
    raise RejectError("time", f"the time is {told(value)}, neither a number nor ISO 8601")


def key_of(value: object) -> RawKey:
    """What may stand for a key: text or a whole number.  Raises RejectError."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise RejectError("key", f"the key is {told(value)}, neither text nor a whole number")


def told(value: object) -> str:
    """`value` in a sentence, cut short: it came from outside."""
    match value:
        case str() | bytes():
            text = repr(value[:_EXCERPT_CHARS_MAX])
            return f"the text {text}" if isinstance(value, str) else f"the bytes {text}"
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case dict():
            return "an object"
        case list() | tuple():
            return "an array"
        case int() | float():
            return "a number"
        case _:
            return f"a {type(value).__name__}"
