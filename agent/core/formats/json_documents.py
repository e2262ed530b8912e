"""JSON: one object, an array of objects, or lines of objects.

Each document is decoded by itself, straight into a struct of what is wanted.  Joining documents and
decoding them in one call was measured (tests/bench/bench_decode.py): it is no faster, and a pair of
payloads crafted to merge would be one more thing to prove impossible.

What the struct decoder takes is taken; what it refuses is decoded once more, slowly, to say why.
What becomes of a document depends on that document alone, never on its neighbours.
"""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from agent.core.formats.json_shapes import Role, Row, Shape, Table
from agent.core.formats.plan import Found, Path, Plan, Tally, parts_of
from agent.core.formats.records import Members, Picker, RejectError, told

_DIGITS_MAX = 310  # an integer with more is beyond every float
_REFUSALS = (msgspec.MsgspecError, ValueError, RecursionError)
_Unit = tuple[bytes, list[Row], int]  # a text, the rows in it, the number of its payload


class JsonReader:
    """Reads JSON payloads; with `lines`, each line is a document."""

    def __init__(self, plan: Plan, *, lines: bool) -> None:
        """Raises RefusedError if the plan contradicts itself."""
        self._picker = Picker(plan)  # checks the plan
        self._lines = lines
        self._width = len(plan.fields)
        self._has_time, self._has_key = bool(plan.time), bool(plan.key)
        members: list[tuple[Role, Path]] = [("field", parts_of(p)) for p in plan.fields]
        members += [("time", parts_of(plan.time))] if plan.time else []
        members += [("key", parts_of(plan.key))] if plan.key else []
        paths = [path for _, path in members]
        self._shape = Shape(members) if len(set(paths)) == len(paths) else None
        if self._shape is not None:
            # a shape lists its own members before those of the objects in it
            order = [path for role, path in self._shape.leaves if role == "field"]
            self._order = [order.index(parts_of(p)) for p in plan.fields]
            self._one = msgspec.json.Decoder(self._shape.struct)
            self._many = msgspec.json.Decoder(list[self._shape.struct])  # type: ignore[name-defined]
        self._parts = msgspec.json.Decoder(list[msgspec.Raw])

    def read(self, payloads: Sequence[bytes], origin: Sequence[int], tally: Tally) -> Found:
        """See `Reader.read`."""
        if self._lines:
            payloads, origin = _lines_of(payloads, origin)
        if self._shape is None:
            return self._read_plainly(payloads, origin, tally)
        if not payloads:
            return self._found(None, [])
        if payloads[0][:1] != b"[":
            try:
                rows = list(map(self._one.decode, payloads))
            except _REFUSALS:
                pass
            else:
                table = Table(self._shape, rows)
                if table.surely_single(b"\n".join(payloads)):
                    return self._found(table, origin)
        units: list[_Unit] = []
        for payload, number in zip(payloads, origin, strict=True):
            units += self._units(payload, number, tally)
        units = self._single(self._shape, units, tally)
        rows = [row for _, inside, _ in units for row in inside]
        numbers = [number for _, inside, number in units for _ in inside]
        return self._found(Table(self._shape, rows) if rows else None, numbers)

    def _found(self, table: Table | None, origin: Sequence[int]) -> Found:
        if table is None:
            empty = [np.empty(0) for _ in range(self._width)]
            return Found([], empty, [] if self._has_time else None, [] if self._has_key else None)
        columns = [table.fields[i] for i in self._order]
        return Found(origin, columns, _none_for_unset(table.times), _none_for_unset(table.keys))

    def _units(self, document: bytes, number: int, tally: Tally) -> list[_Unit]:
        """The rows in one document; an array of which one element is bad is taken apart."""
        if document.lstrip(b" \t\r\n")[:1] != b"[":
            return self._object(document, number, tally)
        try:
            return [(document, self._many.decode(document), number)]
        except _REFUSALS:
            pass
        try:
            parts = [bytes(part) for part in self._parts.decode(document)]
        except _REFUSALS as error:
            tally.reject("malformed", f"the payload is no JSON: {error}")
            return []
        return [unit for part in parts for unit in self._object(part, number, tally)]

    def _object(self, document: bytes, number: int, tally: Tally) -> list[_Unit]:
        try:
            return [(document, [self._one.decode(document)], number)]
        except _REFUSALS as error:
            reason, sentence = self._explain(document, error)
            tally.reject(reason, sentence)
            return []

    def _explain(self, document: bytes, error: Exception) -> tuple[str, str]:
        try:
            self._picker.row(load(document))
        except RejectError as rejected:
            return rejected.reason, str(rejected)
        return "malformed", f"the payload is no JSON: {error}"

    def _single(self, shape: Shape, units: list[_Unit], tally: Tally) -> list[_Unit]:
        """Those units in which no wanted member stands twice, narrowed down by halves."""
        rows = [row for _, inside, _ in units for row in inside]
        if not rows or Table(shape, rows).surely_single(b"\n".join(text for text, _, _ in units)):
            return units
        if len(units) > 1:
            half = len(units) // 2
            return self._single(shape, units[:half], tally) + self._single(
                shape, units[half:], tally
            )
        text, inside, number = units[0]
        if len(inside) > 1:
            parts = [bytes(part) for part in self._parts.decode(text)]
            apart = [(part, [row], number) for part, row in zip(parts, inside, strict=True)]
            return self._single(shape, apart, tally)
        try:
            document = load(text)
            self._picker.row(document[0] if isinstance(document, list) else document)
        except RejectError as rejected:
            if rejected.reason in ("duplicate_key", "malformed"):
                tally.reject(rejected.reason, str(rejected))
                return []
        return units

    def _read_plainly(
        self, documents: Sequence[bytes], origin: Sequence[int], tally: Tally
    ) -> Found:
        """For a plan that reads one member in two roles, which no struct can."""
        for document, number in zip(documents, origin, strict=True):
            try:
                loaded = load(document)
            except RejectError as rejected:
                tally.reject(rejected.reason, str(rejected))
                continue
            for record in loaded if isinstance(loaded, list) else [loaded]:
                self._picker.take(record, number, tally)
        return self._picker.found()


def load(document: bytes) -> Any:
    """One JSON document, by the strictest reading.  Raises RejectError."""
    text = document.decode("utf-8", "surrogateescape")
    try:
        return json.loads(
            text, object_pairs_hook=Members, parse_constant=_refuse_constant, parse_int=_whole
        )
    except RecursionError:
        raise RejectError("malformed", "the payload is nested too deep") from None
    except ValueError as error:
        sentence = f"the payload is no JSON: {error}"
        if not text.strip():
            sentence = "the payload is empty"
        elif text.lstrip()[:1] not in "{[":
            sentence = f"the payload is {told(text)}, not a JSON object"
        raise RejectError("malformed", sentence) from None


def _refuse_constant(name: str) -> Any:
    raise RejectError("not_finite", f"{name} stands where JSON has only finite numbers")


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < _DIGITS_MAX else float(digits)


def _lines_of(
    payloads: Sequence[bytes], origin: Sequence[int]
) -> tuple[Sequence[bytes], Sequence[int]]:
    lines: list[bytes] = []
    numbers: list[int] = []
    for payload, number in zip(payloads, origin, strict=True):
        inside = [line for line in payload.split(b"\n") if line.strip()]
        lines += inside
        numbers += [number] * len(inside)
    return lines, numbers


def _none_for_unset(values: Sequence[Any] | None) -> Sequence[Any] | None:
    if values is None or msgspec.UNSET not in values:
        return values
    return [None if value is msgspec.UNSET else value for value in values]
