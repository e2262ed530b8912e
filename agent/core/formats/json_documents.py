"""JSON: one object, an array of objects, or lines of objects.

Each document is decoded by itself, straight into a struct of what is wanted.  Joining documents and
decoding them in one call was measured (tests/bench/bench_decode.py): it is no faster, and a pair of
payloads crafted to merge would be one more thing to prove impossible.

What the struct decoder takes is taken; what it refuses is decoded once more, slowly, to say why.
What becomes of a document depends on that document alone, never on its neighbours.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.core.blocks import Column
from agent.core.formats.json_repeats import Proof
from agent.core.formats.json_shapes import Role, Row, Shape, Table
from agent.core.formats.plan import Found, Path, Plan, Stamp, Tally, parts_of
from agent.core.formats.records import Picker, RejectError, object_of, told

_DIGITS_MAX = 310  # an integer with more is beyond every float
_BLANK = b" \t\r\n"
_PROVED_AT_ONCE = 32  # where a whole batch cannot be proved
_PIECE_BYTES = 128 * 1024  # decoded and made columns at once, while its rows are in the cache
_REFUSALS = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(slots=True)
class _Units:
    """Documents that were decoded: text i has the next `sizes[i]` rows, out of `origin[i]`."""

    texts: list[bytes] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    origin: list[int] = field(default_factory=list)

    def add(self, texts: Sequence[bytes], rows: Sequence[Row], origin: Sequence[int]) -> None:
        """Add texts of one row each."""
        self.texts += texts
        self.rows += rows
        self.sizes += [1] * len(texts)
        self.origin += origin

    def add_array(self, text: bytes, rows: Sequence[Row], number: int) -> None:
        """Add one text of many rows; of none, nothing, so that no text is without a row."""
        if rows:
            self.texts.append(text)
            self.rows += rows
            self.sizes.append(len(rows))
            self.origin.append(number)

    def origin_of_rows(self) -> NDArray[np.intp]:
        """For each row the number of its payload."""
        origin = np.array(self.origin, np.intp)
        return origin if len(self.texts) == len(self.rows) else np.repeat(origin, self.sizes)


class JsonReader:
    """Reads JSON payloads; with `lines`, each line is a document."""

    def __init__(self, plan: Plan, *, lines: bool) -> None:
        """Raises RefusedError if the plan contradicts itself."""
        self._picker = Picker(plan)  # checks the plan
        self._lines = lines
        self._proof = Proof()
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
        pieces = [(payloads[some], origin[some]) for some in _pieces(payloads)]
        found = [self._read_piece(self._shape, *piece, tally) for piece in pieces]
        if len(found) == 1:
            return found[0]
        joined = _joined(found)
        if all(part.origin is numbers for part, (_, numbers) in zip(found, pieces, strict=True)):
            joined.origin = origin  # one reading a payload, and all of them good
        return joined

    def _read_piece(
        self, shape: Shape, payloads: Sequence[bytes], origin: Sequence[int], tally: Tally
    ) -> Found:
        units = self._decoded(payloads, origin, tally)
        if units.rows:
            table = Table(shape, units.rows)
            if self._proof.holds(units.texts, table):
                is_plain = len(units.rows) == len(units.texts) == len(payloads)
                return self._found(table, origin if is_plain else units.origin_of_rows())
            units = self._singles(shape, units, tally)
        if not units.rows:
            empty = [np.empty(0) for _ in range(self._width)]
            times = np.empty(0) if self._has_time else None
            return Found([], empty, times, [] if self._has_key else None)
        return self._found(Table(shape, units.rows), units.origin_of_rows())

    def _found(self, table: Table, origin: Sequence[int] | NDArray[np.intp]) -> Found:
        columns = [table.fields[i] for i in self._order]
        return Found(origin, columns, _none_for_unset(table.times), _none_for_unset(table.keys))

    def _decoded(self, documents: Sequence[bytes], origin: Sequence[int], tally: Tally) -> _Units:
        """Every row that can be decoded, in order."""
        units = _Units()
        rest = iter(documents)
        start = 0
        while True:
            rows: list[Row] = []
            refusal: Exception | None = None
            try:
                rows.extend(map(self._one.decode, rest))  # keeps what came before an error
            except _REFUSALS as error:
                refusal = error
            end = start + len(rows)
            units.add(documents[start:end], rows, origin[start:end])
            if refusal is None:
                return units
            if documents[end].lstrip(_BLANK)[:1] == b"[":
                self._array(documents[end], origin[end], units, tally)
            else:
                self._explain(documents[end], refusal, tally)
            start = end + 1

    def _array(self, document: bytes, number: int, units: _Units, tally: Tally) -> None:
        """Add the rows of an array; one of which an element is bad is taken apart."""
        try:
            units.add_array(document, self._many.decode(document), number)
        except _REFUSALS:
            pass
        else:
            return
        try:
            parts = [bytes(part) for part in self._parts.decode(document)]
        except _REFUSALS as error:
            tally.reject("malformed", _no_json(error))
            return
        for part in parts:
            try:
                units.add([part], [self._one.decode(part)], [number])
            except _REFUSALS as error:
                self._explain(part, error, tally)

    def _explain(self, document: bytes, error: Exception, tally: Tally) -> None:
        """Count a document that was refused, under the reason a slower look at it gives."""
        reason, sentence = "malformed", _no_json(error)
        try:
            self._picker.row(load(document))
        except RejectError as rejected:
            reason, sentence = rejected.reason, str(rejected)
        tally.reject(reason, sentence)

    def _singles(self, shape: Shape, units: _Units, tally: Tally) -> _Units:
        """What of `units` has no wanted member twice; where a few cannot be proved, one by one."""
        single = self._apart(units)
        kept = _Units()
        for start in range(0, len(single.texts), _PROVED_AT_ONCE):
            some = slice(start, start + _PROVED_AT_ONCE)
            texts, rows, origin = single.texts[some], single.rows[some], single.origin[some]
            if self._proof.holds(texts, Table(shape, rows)):
                kept.add(texts, rows, origin)
                continue
            for text, row, number in zip(texts, rows, origin, strict=True):
                try:
                    self._picker.row(load(text))
                except RejectError as rejected:
                    tally.reject(rejected.reason, str(rejected))
                else:
                    kept.add([text], [row], [number])
        return kept

    def _apart(self, units: _Units) -> _Units:
        """The same rows, each with a text of its own."""
        if not any(text.lstrip(_BLANK)[:1] == b"[" for text in units.texts):
            return units
        apart, first = _Units(), 0
        for text, size, number in zip(units.texts, units.sizes, units.origin, strict=True):
            rows = units.rows[first : first + size]
            first += size
            texts = [text]
            if text.lstrip(_BLANK)[:1] == b"[":
                texts = [bytes(part) for part in self._parts.decode(text)]
            apart.add(texts, rows, [number] * size)
        return apart

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


def _no_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the payload is nested too deep"
    return f"the payload is no JSON: {error}"


def load(document: bytes) -> Any:
    """One JSON document, by the strictest reading.  Raises RejectError."""
    text = document.decode("utf-8", "surrogateescape")
    try:
        return json.loads(
            text, object_pairs_hook=object_of, parse_constant=_refuse_constant, parse_int=_whole
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


def _pieces(payloads: Sequence[bytes]) -> Iterator[slice]:
    """All of `payloads`, in order, a few at a time; at least one piece."""
    start = size = 0
    for i, length in enumerate(map(len, payloads)):
        size += length
        if size > _PIECE_BYTES and i > start:
            yield slice(start, i)
            start, size = i, length
    yield slice(start, None)


def _joined(parts: Sequence[Found]) -> Found:
    """What was found in the pieces of one read."""
    times = [part.times for part in parts if part.times is not None]
    keys = [part.keys for part in parts if part.keys is not None]
    return Found(
        np.concatenate([np.asarray(part.origin, np.intp) for part in parts]),
        [np.concatenate(column) for column in zip(*(p.columns for p in parts), strict=True)],
        _end_to_end(times) if times else None,
        list(chain.from_iterable(keys)) if keys else None,
    )


def _end_to_end(times: Sequence[Sequence[Stamp] | Column]) -> Sequence[Stamp] | Column:
    numbers = [part for part in times if isinstance(part, np.ndarray)]
    if len(numbers) == len(times):
        return np.concatenate(numbers)
    lists = [part.tolist() if isinstance(part, np.ndarray) else part for part in times]
    return list(chain.from_iterable(lists))


def _none_for_unset(values: Any) -> Any:
    """Values of one column as `Found` has them."""
    if values is None or isinstance(values, np.ndarray) or msgspec.UNSET not in values:
        return values
    return [None if value is msgspec.UNSET else value for value in values]
