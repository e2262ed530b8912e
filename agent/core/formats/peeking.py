"""One reading out of a payload, whole: every member there is, whether anybody wants it or not.

The readers of this folder look for what was asked for; this looks at what is there, so that a model
can be held against a stream before any model listens to it.  It is slower and strictly bounded, and
meant for a sample of payloads.
"""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np

from agent.core.formats.binary_documents import uncbor, unmsgpack
from agent.core.formats.records import RejectError, told
from agent.core.streams import StreamSpec

PAYLOAD_BYTES_MAX = 64 * 1024  # half a millisecond of decoding
MEMBERS_MAX = 512
_DEPTH_MAX = 8
_LINE_FORMATS = ("ndjson", "csv")

Reading = Mapping[str, float | str]  # path -> number, NaN for nothing, or what else stands there


class Peeker:
    """Picks single readings out of payloads of `spec`.

    header  csv: what the columns are called, once known
    """

    def __init__(self, spec: StreamSpec) -> None:
        self._spec = spec
        self.header = spec.columns
        self._documents: Mapping[str, Callable[[bytes], object]] = {
            "json": msgspec.json.decode,
            "ndjson": msgspec.json.decode,
            "cbor": uncbor,
            "msgpack": unmsgpack,
        }

    @property
    def needs_header(self) -> bool:
        """Whether a payload with the header line should not be missed."""
        return self._spec.format == "csv" and not self.header

    def learn(self, payload: bytes) -> None:
        """Take the first line for the header, if its cells are names and not values."""
        first, _, _ = payload[:PAYLOAD_BYTES_MAX].partition(b"\n")
        cells = _cells(first)
        named = bool(cells) and all(cells) and not any(map(_is_number, cells))
        if named and len(set(cells)) == len(cells):
            self.header = tuple(cells)

    def peek(self, payload: bytes, pick: float) -> Reading | None:
        """The reading at `pick` (0 to 1) of those in `payload`.

        None where there is none that can be read, or the payload is too large to look into.
        """
        if self._spec.format in _LINE_FORMATS:
            payload = _line(payload, pick)
        elif self._spec.format == "float32":
            return self._packed(payload, pick)
        if not payload or len(payload) > PAYLOAD_BYTES_MAX:
            return None
        if self._spec.format == "csv":
            return self._row(payload)
        decode = self._documents.get(self._spec.format)
        if decode is None:
            return None
        try:
            document = decode(payload)
        except (msgspec.MsgspecError, RejectError, ValueError, RecursionError):
            return None
        if isinstance(document, list) and document:
            document = document[int(pick * len(document))]
        if not isinstance(document, dict):
            return None
        found: dict[str, float | str] = {}
        for path, value in _leaves(document, (), _DEPTH_MAX):
            found[path] = _value(value)
            if len(found) == MEMBERS_MAX:
                break
        return found

    def _row(self, line: bytes) -> Reading | None:
        cells = _cells(line)
        if len(cells) != len(self.header) or tuple(cells) == self.header:
            return None
        return dict(zip(self.header[:MEMBERS_MAX], map(_cell, cells), strict=False))

    def _packed(self, payload: bytes, pick: float) -> Reading | None:
        names = self._spec.columns or tuple(self._spec.fields.values())
        rows, rest = divmod(len(payload), 4 * len(names)) if names else (0, 0)
        if not rows or rest:
            return None
        values = np.frombuffer(payload, "<f4", len(names), 4 * len(names) * int(pick * rows))
        return {
            name: "an infinity" if math.isinf(value) else value
            for name, value in zip(names[:MEMBERS_MAX], values.tolist(), strict=False)
        }


def _leaves(
    record: Mapping[object, object], above: Sequence[str], depth: int
) -> Iterator[tuple[str, object]]:
    """Path and value of everything in `record` that is no object itself."""
    for name, value in record.items():
        path = (*above, str(name).replace(".", "\\."))
        if isinstance(value, dict) and depth > 1:
            yield from _leaves(value, path, depth - 1)
        else:
            yield ".".join(path), value


def _value(value: object) -> float | str:
    """As a column would have it: a finite number, NaN for nothing, else the words for it."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return told(value)
    try:
        number = float(value)
    except OverflowError:
        return "no finite number"
    return number if math.isfinite(number) else "no finite number"


def _cell(cell: str) -> float | str:
    if not cell:
        return math.nan
    if not _is_number(cell):
        return told(cell)
    return _value(float(cell))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _cells(line: bytes) -> list[str]:
    try:
        text = line.decode("utf-8-sig")
        rows = list(csv.reader([text.strip("\r\n")], strict=True))
    except (UnicodeDecodeError, csv.Error):
        return []
    return [cell.strip() for cell in rows[0]] if rows else []


def _line(payload: bytes, pick: float) -> bytes:
    """A whole line about `pick` of the way through, without splitting all of it."""
    start = payload.rfind(b"\n", 0, int(pick * len(payload)) + 1) + 1
    if not payload[start:].strip():
        start = payload.rfind(b"\n", 0, len(payload.rstrip())) + 1
    end = payload.find(b"\n", start)
    return payload[start : end if end >= 0 else len(payload)].strip()
