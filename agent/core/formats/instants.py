"""Event times as payloads write them, as seconds since 1970-01-01 UTC.

A number is told apart by its size.  Later than 1980 and earlier than the year 5138 the four units
do not overlap: the borders are 1e11 s (5138) or ms (1973), 1e14 ms or µs, 1e17 µs or ns.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from agent.core.blocks import Column
from agent.core.formats.plan import Stamp

EARLIEST_S = 315_532_800.0  # 1980-01-01: before it no sensor had a clock worth believing
BELIEVABLE_S = 1_577_836_800.0  # 2020-01-01: a device clock before this has not been set yet
_MILLI_FROM, _MICRO_FROM, _NANO_FROM = 1e11, 1e14, 1e17
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"^\s*\d{9,20}(\.\d*)?\s*$|^\s*\d+\.\d*\s*$|^\s*\d(\.\d*)?[eE]\+?\d{1,2}\s*$")
_TEXT_CHARS_MAX = 64


def seconds_of(stamps: Sequence[Stamp] | Column, now: float) -> Column:
    """float64 [n]: each stamp in seconds; `now` for None; NaN for what is no time."""
    if isinstance(stamps, np.ndarray):
        return from_numbers(stamps)
    kinds = set(map(type, stamps))
    if kinds <= {float}:
        return from_numbers(np.array(stamps, np.float64))
    numbers = np.array([_number_of(stamp) for stamp in stamps], np.float64)
    seconds = from_numbers(numbers)
    if type(None) in kinds:
        seconds[[stamp is None for stamp in stamps]] = now
    return seconds


def from_numbers(numbers: Column) -> Column:
    """Seconds, out of numbers that may be s, ms, µs or ns."""
    # NaN compares false and takes the long way
    if not len(numbers) or np.maximum.reduce(numbers) < _MILLI_FROM:
        return numbers
    scale = np.select(
        [numbers >= _NANO_FROM, numbers >= _MICRO_FROM, numbers >= _MILLI_FROM],
        [1e9, 1e6, 1e3],
        1.0,
    )
    scaled: Column = numbers / scale
    return scaled


def believable(seconds: Column, now: float, ahead_s_max: float) -> bool:
    """Whether surely none of them is `absurd`: one look at all, not five at each."""
    if not len(seconds):
        return True
    earliest, latest = np.minimum.reduce(seconds), np.maximum.reduce(seconds)
    return bool(earliest >= EARLIEST_S and latest <= _latest(now, ahead_s_max) < np.inf)


def absurd(seconds: Column, now: float, ahead_s_max: float) -> NDArray[np.bool]:
    """Which times cannot be meant: no time at all, before 1980, or too far ahead of `now`.

    A device whose clock has not been set yet (before 2020) cannot tell what lies ahead.
    """
    latest = _latest(now, ahead_s_max)
    bad: NDArray[np.bool] = ~((seconds >= EARLIEST_S) & (seconds <= latest) & np.isfinite(seconds))
    return bad


def _latest(now: float, ahead_s_max: float) -> float:
    return now + ahead_s_max if now >= BELIEVABLE_S else np.inf


def _number_of(stamp: Stamp) -> float:
    if stamp is None:
        return np.nan
    if isinstance(stamp, float):
        return stamp
    if len(stamp) > _TEXT_CHARS_MAX:
        return np.nan
    if _NUMBER.match(stamp):
        return float(stamp)
    try:
        moment = datetime.fromisoformat(stamp.strip())
    except ValueError:
        return np.nan
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH).total_seconds()
