"""A recording in CSV as the readings a sensor would have sent: one JSON object per row.

Numbers become numbers, everything else stays the text it is; an empty cell, or one that says NaN,
is a field the reading does not have.  Read row by row: a recording may be longer than memory.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent.core.errors import RefusedError
from agent.core.formats.instants import seconds_of
from agent.core.names import is_id

COLUMNS_MAX = 4096
CELL_CHARS_MAX = 1_000_000
DELIMITERS = ",;\t"
# Not 007, which is a name; not 1_000 either, though Python would read it.
_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_MISSING = frozenset({"", "nan", "null", "none", "n/a", "na"})

Reading = dict[str, Any]


def readings(lines: Iterable[str], name: str) -> Iterator[Reading]:
    """The rows under the header line, in order; `name` is the file's, for the sentences.

    Raises:
        RefusedError: there is no usable header, or a row does not fit it.
    """
    rest = iter(lines)
    header = next(rest, "")
    delimiter = max(DELIMITERS, key=header.count)
    csv.field_size_limit(CELL_CHARS_MAX)
    columns = _columns(header, delimiter, name)
    rows = csv.reader(rest, delimiter=delimiter)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise RefusedError(f"{name}, line {rows.line_num + 1}: {error}") from error
        if len(row) > len(columns):
            raise RefusedError(
                f"{name}, line {rows.line_num + 1}: {len(row)} cells under {len(columns)} columns"
            )
        if row:
            cells = zip(columns, row, strict=False)
            yield {column: value_of(cell) for column, cell in cells if not is_missing(cell)}


def is_missing(cell: str) -> bool:
    """Whether the cell says that there is no value."""
    return cell.strip().lower() in _MISSING


def value_of(cell: str) -> int | float | str:
    """A number if the cell is one that JSON can say, else its text."""
    text = cell.strip()
    if _NUMBER.fullmatch(text) is None:
        return cell
    if text.lstrip("+-").isdecimal() and len(text) <= 18:
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else cell


def encode(reading: Mapping[str, Any]) -> bytes:
    """The reading as it is published."""
    return json.dumps(reading, ensure_ascii=False, separators=(",", ":")).encode()


def topic_of(template: str, reading: Mapping[str, Any]) -> str:
    """`plant/{machine}/telemetry` with the row's own machine put in.

    Raises:
        RefusedError: the row has no such column, or its value cannot be a topic level.
    """

    def level(found: re.Match[str]) -> str:
        value = str(reading.get(found[1], ""))
        if not is_id(value):
            raise RefusedError(
                f"the topic {template} wants the column {found[1]!r} of each row; {value!r} cannot"
                " be a topic level"
            )
        return value

    return re.sub(r"\{([^{}]*)\}", level, template) if "{" in template else template


def time_of(reading: Mapping[str, Any], column: str) -> float:
    """When the row was recorded, in seconds since 1970-01-01 UTC.

    Raises:
        RefusedError: its `column` holds no time.
    """
    stamp = reading.get(column)
    if isinstance(stamp, int):
        stamp = float(stamp)
    second = float(seconds_of([stamp], math.nan)[0]) if stamp is not None else math.nan
    if not math.isfinite(second):
        raise RefusedError(f"the column {column!r} holds {stamp!r}, which is no time")
    return second


def _columns(header: str, delimiter: str, name: str) -> list[str]:
    columns = [c.strip() for c in next(csv.reader([header], delimiter=delimiter), [])]
    if not any(columns):
        raise RefusedError(f"{name} is empty; its first line must name the columns")
    if all(value_of(c) != c or is_missing(c) for c in columns):
        raise RefusedError(f"{name} has no header: its first line must name the columns")
    if len(columns) > COLUMNS_MAX or "" in columns:
        raise RefusedError(f"{name} has a column without a name, or more than {COLUMNS_MAX}")
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise RefusedError(f"{name} has the column {twice[0]!r} twice")
    return columns
