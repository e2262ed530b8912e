"""Blocks into model features: ranges, missing values, scale.  One model, one Featurizer.

What is held for a sensor is its last value that was in range, even if that reading was rejected for
another feature it lacked: sensors that send only what changed must become complete somehow.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import grown, pack, total, unpack
from agent.core.blocks import Block
from agent.core.errors import RefusedError
from agent.core.grouping import Groups
from agent.core.manifest import Features

Matrix = NDArray[np.float64]


@dataclass(slots=True)
class Rows:
    """Readings one model can use, in order of arrival.

    keys int32 [n], times float64 [n] (event time, s), values float64 [n, features]
    rejected: reason (`range`, `missing`) -> readings that are not in the rows
    """

    keys: NDArray[np.int32]
    times: NDArray[np.float64]
    values: Matrix
    rejected: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)


class Featurizer:
    """Applies `features` to block after block; remembers each sensor's last values if it must."""

    def __init__(self, features: Features) -> None:
        self._names = features.names
        count = len(features.names)
        self._low = self._high = None
        if features.ranges is not None:
            self._low, self._high = np.array(features.ranges, np.float64).T
        each = features.missing_each
        self._hold = np.array([policy == "hold" for policy in each])
        self.remembers = False  # whether earlier readings have mattered
        self._reject = np.array([policy == "reject" for policy in each])
        self._fill = np.array([np.nan if isinstance(p, str) else p for p in each], np.float64)
        self._fills = bool(np.isfinite(self._fill).any())
        self._scale = None
        if features.scale is not None:
            self._scale = np.array(features.scale.mean), np.array(features.scale.std)
        self._last: Matrix = np.empty((0, count))  # by key; NaN: none yet
        self.last_reject: dict[str, str] = {}  # reason -> a sentence about the latest of it

    def featurize(self, block: Block) -> Rows:
        """The block's readings as rows; those it cannot use are counted."""
        values = self._matrix(block)
        keys, times = block.keys, block.times
        rejected: dict[str, int] = {}
        if self._low is not None and self._high is not None:
            with np.errstate(invalid="ignore"):
                outside = ((values < self._low) | (values > self._high)).any(axis=1)
            if outside.any():
                rejected["range"] = int(np.count_nonzero(outside))
                self._say_range(values[outside][-1])
                keys, times, values = keys[~outside], times[~outside], values[~outside]
        some = math.isnan(total(values)) and bool(np.isnan(values).any())
        if self._hold.any() and len(keys):
            self.remembers |= block.filled
            self._hold_last(keys, values, some=some)
        if some:
            lacking = np.isnan(values[:, self._hold | self._reject]).any(axis=1)
            if lacking.any():
                rejected["missing"] = int(np.count_nonzero(lacking))
                self._say_missing(values[lacking][-1])
                keys, times, values = keys[~lacking], times[~lacking], values[~lacking]
            if self._fills:
                values = np.where(np.isnan(values), self._fill, values)
        if self._scale is not None:
            mean, std = self._scale
            values -= mean
            values /= std
        return Rows(keys, times, values, rejected)

    def snapshot(self) -> bytes:
        """What is held, for a restart."""
        return pack({"last": self._last}, self._about())

    def restore(self, raw: bytes) -> None:
        """Take up what `snapshot` gave.  Raises RefusedError if it is of other features."""
        last = unpack(raw, self._about()).get("last")
        if last is None or last.ndim != 2 or last.shape[1] != len(self._names):
            raise RefusedError("the held values cannot be read")
        self._last = last.astype(np.float64)

    def _about(self) -> str:
        return f"features {','.join(self._names)}"

    def _say_range(self, row: NDArray[np.float64]) -> None:
        assert self._low is not None
        assert self._high is not None
        at = int(np.flatnonzero((row < self._low) | (row > self._high))[0])
        low, high = self._low[at], self._high[at]
        why = f"{self._names[at]} is {row[at]:g}, outside of {low:g} to {high:g}"
        self.last_reject["range"] = why

    def _say_missing(self, row: NDArray[np.float64]) -> None:
        at = int(np.flatnonzero(np.isnan(row) & (self._hold | self._reject))[0])
        held = ", and its sensor has sent none yet" if self._hold[at] else ""
        self.last_reject["missing"] = f"{self._names[at]} is missing{held}"

    def _matrix(self, block: Block) -> Matrix:
        values = np.empty((len(block), len(self._names)))
        for i, name in enumerate(self._names):
            column = block.columns.get(name)
            values[:, i] = np.nan if column is None else column
        return values

    def _hold_last(self, keys: NDArray[np.int32], values: Matrix, *, some: bool) -> None:
        """Fill what is missing from the sensor's earlier readings, in this block or before it."""
        self._last = grown(self._last, int(keys.max()) + 1, np.nan)
        if not some:
            self._last[keys] = values  # of several rows of a key the last one stays
            return
        self.remembers = True
        groups = Groups(keys)
        ordered = values[groups.order]
        lacks = np.isnan(ordered)
        # the latest row at or before each that has a value; before the first of the key: none
        row = np.arange(len(keys))[:, None]
        source = np.maximum.accumulate(np.where(lacks, -1, row), axis=0)
        before = source < groups.spread(groups.starts)[:, None]
        filled = np.where(
            before, self._last[groups.keys], np.take_along_axis(ordered, np.maximum(source, 0), 0)
        )
        ends = groups.starts + groups.sizes - 1
        self._last[groups.unique] = filled[ends]
        filled[:, ~self._hold] = ordered[:, ~self._hold]
        values[groups.order] = filled
