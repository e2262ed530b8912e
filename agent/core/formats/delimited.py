"""CSV: lines of cells between commas, with or without a header line.

A line is a reading, and its bad quoting costs no other line: a quoted cell may hold commas but no
line break.  An empty cell is a missing value.
"""

import csv
import math
from collections.abc import Sequence

import numpy as np

from agent.core.formats.instants import seconds_of
from agent.core.formats.plan import Found, Plan, RawKey, Stamp, Tally
from agent.core.formats.records import RejectError, told

_Line = tuple[list[str], int]  # cells, and the number of the payload


class CsvReader:
    """Reads CSV.  `header` is what the columns are called, as configured or as last seen.

    Without configured columns the first line that names something we look for is the header, for
    this and all later payloads: a tailed file has it once.  A header that comes again is skipped.
    """

    def __init__(self, plan: Plan, header: tuple[str, ...], *, fixed: bool) -> None:
        """`fixed`: the header is configured and no line may replace it."""
        self._plan = plan
        self._wanted = {*plan.fields, plan.time, plan.key} - {""}
        self._fixed = fixed
        self.header = header

    def read(self, payloads: Sequence[bytes], origin: Sequence[int], tally: Tally) -> Found:
        """See `Reader.read`."""
        lines: list[_Line] = []
        parts: list[Found] = []
        for payload, number in zip(payloads, origin, strict=True):
            inside = [(cells, number) for cells in _lines_of(payload, tally)]
            if inside and self._is_header(header := [cell.strip() for cell in inside[0][0]]):
                if tuple(header) != self.header:
                    parts.append(self._readings(lines, tally))
                    lines, self.header = [], tuple(header)
                del inside[0]
            lines += inside
        parts.append(self._readings(lines, tally))
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _is_header(self, cells: list[str]) -> bool:
        if tuple(cells) == self.header:
            return True
        if self._fixed or self._wanted.isdisjoint(cells) or len(set(cells)) < len(cells):
            return False
        return not any(_is_value(cell) for cell in cells)

    def _readings(self, lines: list[_Line], tally: Tally) -> Found:
        width = len(self.header)
        good = [line for line in lines if len(line[0]) == width and width]
        if len(good) != len(lines):
            why = f"a line has not {width} cells, as its header has"
            if not width:
                why = "no header line came yet; name the columns in the stream's `columns`"
            tally.reject("malformed", why, len(lines) - len(good))
        at = {name: i for i, name in enumerate(self.header)}
        found = self._quickly(good, at)
        return self._slowly(good, at, tally) if found is None else found

    def _quickly(self, lines: list[_Line], at: dict[str, int]) -> Found | None:
        """All lines at once; None if a cell needs a closer look."""
        if not lines:
            return None
        cells = list(zip(*(line for line, _ in lines), strict=True))
        columns = []
        for path in self._plan.fields:
            if path not in at:
                columns.append(np.full(len(lines), np.nan))
                continue
            text = cells[at[path]]
            try:
                column = np.array(list(map(float, text)), np.float64)
            except ValueError:
                return None
            if not np.isfinite(column).all() or any("_" in cell for cell in text):
                return None
            columns.append(column)
        absent: Sequence[str] = [""] * len(lines)
        times, keys = (
            [cell.strip() or None for cell in (cells[at[path]] if path in at else absent)]
            if path
            else None
            for path in (self._plan.time, self._plan.key)
        )
        return Found([number for _, number in lines], columns, times, keys)

    def _slowly(self, lines: list[_Line], at: dict[str, int], tally: Tally) -> Found:
        """Line by line."""
        rows: list[list[float]] = []
        times: list[Stamp] = []
        keys: list[RawKey] = []
        origin: list[int] = []
        places = [(path, at.get(path)) for path in self._plan.fields]
        time_at, key_at = at.get(self._plan.time), at.get(self._plan.key)
        for cells, number in lines:
            try:
                row = [math.nan if i is None else _number(cells[i], path) for path, i in places]
            except RejectError as error:
                tally.reject(error.reason, str(error))
                continue
            rows.append(row)
            times.append(None if time_at is None else cells[time_at].strip() or None)
            keys.append(None if key_at is None else cells[key_at].strip() or None)
            origin.append(number)
        columns = [np.array([row[i] for row in rows], np.float64) for i in range(len(places))]
        return Found(
            origin,
            columns,
            times if self._plan.time else None,
            keys if self._plan.key else None,
        )


def _lines_of(payload: bytes, tally: Tally) -> list[list[str]]:
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        tally.reject("malformed", f"the payload is no UTF-8 text: {error.reason}")
        return []
    if '"' not in text:
        return [line.split(",") for line in text.splitlines() if line.strip()]
    lines: list[list[str]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            lines += csv.reader([line], strict=True)
        except csv.Error as error:
            tally.reject("malformed", f"a line is no CSV: {error}")
    return lines


def _number(cell: str, path: str) -> float:
    cell = cell.strip()
    if not cell:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = None
    if value is None or "_" in cell:
        raise RejectError("type", f"{path} is {told(cell)}, not a number")
    if not math.isfinite(value):
        raise RejectError("not_finite", f"{path} is no finite number")
    return value


def _is_value(cell: str) -> bool:
    """Whether a cell holds a value rather than a name."""
    try:
        float(cell)
    except ValueError:
        return not cell or bool(np.isfinite(seconds_of([cell], 0.0)[0]))
    return True


def _joined(parts: list[Found]) -> Found:
    """Readings under different headers, one after the other."""
    first, *_ = parts
    return Found(
        [number for part in parts for number in part.origin],
        [np.concatenate(columns) for columns in zip(*(p.columns for p in parts), strict=True)],
        None if first.times is None else [t for part in parts for t in part.times or ()],
        None if first.keys is None else [k for part in parts for k in part.keys or ()],
    )
