"""float32: rows of little-endian floats, as many to a row as there are columns.

There is no null in this format, so NaN says that a value is missing; an infinity is refused.
"""

from collections.abc import Sequence

import numpy as np

from agent.core.formats.plan import Found, Plan, RawKey, Tally


class PackedReader:
    """Reads packed rows of `columns`."""

    def __init__(self, plan: Plan, columns: tuple[str, ...]) -> None:
        self._plan = plan
        self._width = len(columns)
        self._at = {name: i for i, name in enumerate(columns)}

    def read(self, payloads: Sequence[bytes], origin: Sequence[int], tally: Tally) -> Found:
        """See `Reader.read`."""
        row_bytes = 4 * self._width
        whole = [p for p in payloads if len(p) % row_bytes == 0]
        if len(whole) != len(payloads):
            why = (
                f"a payload is not made of whole rows of {self._width} float32 ({row_bytes} bytes)"
            )
            tally.reject("malformed", why, len(payloads) - len(whole))
            origin = [
                number
                for number, p in zip(origin, payloads, strict=True)
                if len(p) % row_bytes == 0
            ]
        rows = np.frombuffer(b"".join(whole), "<f4").reshape(-1, self._width)
        with np.errstate(invalid="ignore"):  # a signalling NaN is one like any other
            rows = rows.astype(np.float64)
        per_payload = [len(p) // row_bytes for p in whole]
        numbers = np.repeat(np.asarray(origin, np.int64), per_payload)
        used = [self._at[path] for path in self._plan.fields if path in self._at]
        infinite = np.isinf(rows[:, used]).any(axis=1)
        if infinite.any():
            tally.reject("not_finite", "a value is infinite", int(infinite.sum()))
            rows, numbers = rows[~infinite], numbers[~infinite]
        columns = [
            np.ascontiguousarray(rows[:, self._at[path]])
            if path in self._at
            else np.full(len(rows), np.nan)
            for path in self._plan.fields
        ]
        times: list[float | None] | None = None
        if self._plan.time:
            times = self._column(rows, self._plan.time)
        keys: list[RawKey] | None = None
        if self._plan.key:
            keys = [
                int(k) if k is not None and k.is_integer() else None
                for k in self._column(rows, self._plan.key)
            ]
        return Found(numbers.tolist(), columns, times, keys)

    def _column(
        self, rows: np.ndarray[tuple[int, int], np.dtype[np.float64]], name: str
    ) -> list[float | None]:
        if name not in self._at:
            return [None] * len(rows)
        column: list[float] = rows[:, self._at[name]].tolist()
        return [None if value != value else value for value in column]  # noqa: PLR0124  # NaN
