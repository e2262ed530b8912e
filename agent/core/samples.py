"""Two-sample statistics on scores, in fixed memory: how far apart are what two versions say?

The distance is that of Kolmogorov and Smirnov: the largest difference between the two empirical
distribution functions.  It lies between 0 and 1 whatever the scale of the scores, asks nothing of
their distribution, does not change under any monotonic rescaling, and has a known error for a known
sample size, so that a small sample cannot condemn (Massey 1951; Smirnov's asymptotic bound).  The
population stability index depends on how one bins, and a difference of means does not see a change
of shape.
"""

import math

import numpy as np
from numpy.typing import NDArray

ROWS_MAX = 4096  # kept of each side: the error of the distance is then 0.05 at most
WIDTH_MAX = 8  # leading columns of a vector score that are compared
SEED = 20  # any; two reservoirs that are given rows for rows keep the same ones


class Reservoir:
    """A uniform sample of all rows ever added (Vitter's algorithm R), the same one each time."""

    def __init__(self, rows_max: int = ROWS_MAX) -> None:
        self.seen = 0
        self._rows_max = rows_max
        self._rows: NDArray[np.float64] = np.empty((0, 1))
        self._random = np.random.Generator(np.random.PCG64(SEED))

    def __len__(self) -> int:
        return min(self.seen, self._rows_max)

    @property
    def width(self) -> int:
        """How many columns are compared."""
        return int(self._rows.shape[1])

    def add(self, scores: NDArray[np.floating]) -> None:
        """Rows of one score [n], or of several [n, k]; all finite."""
        if not len(scores):
            return
        rows = scores.reshape(len(scores), -1)[:, :WIDTH_MAX].astype(np.float64)
        if self.seen == 0:
            self._rows = np.empty((self._rows_max, rows.shape[1]))
        if rows.shape[1] != self._rows.shape[1]:
            rows = np.resize(rows, (len(rows), self._rows.shape[1]))
        room = min(max(0, self._rows_max - self.seen), len(rows))
        self._rows[self.seen : self.seen + room] = rows[:room]
        rest = rows[room:]
        if len(rest):
            numbers = np.arange(self.seen + room, self.seen + len(rows))
            places = self._random.integers(0, numbers + 1)
            kept = places < self._rows_max
            self._rows[places[kept]] = rest[kept]  # of two for one place the later stays
        self.seen += len(rows)

    def columns(self) -> NDArray[np.float64]:
        """The sample, sorted in each column: [rows, columns]."""
        return np.sort(self._rows[: len(self)], axis=0)


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The largest Kolmogorov-Smirnov distance of any column; NaN where a sample is empty.

    one, other: sorted in each column, [n, k] and [m, k].
    """
    if not len(one) or not len(other):
        return math.nan
    columns = min(one.shape[1], other.shape[1])
    return max(_distance(one[:, i], other[:, i]) for i in range(columns))


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    at = np.concatenate([one, other])
    below = np.searchsorted(one, at, side="right") / len(one)
    below_other = np.searchsorted(other, at, side="right") / len(other)
    return float(np.abs(below - below_other).max())


def distance_error(n: int, m: int, doubt: float, columns: int = 1) -> float:
    """By how much two samples of n and m rows of one distribution differ, but for a `doubt`.

    Smirnov: P(D > c·sqrt((n+m)/(n·m))) ≈ 2·exp(-2c²); the doubt is shared among `columns`
    (Bonferroni).  1 where a sample is empty.
    """
    if not n or not m:
        return 1.0
    return min(1.0, math.sqrt(-0.5 * math.log(doubt / (2 * columns)) * (n + m) / (n * m)))


def chance_of_so_few(agreed: int, rows: int, share: float) -> float:
    """P(X ≤ agreed) for X binomial of `rows` at `share`: exact, where that is not surely likely.

    1 where at least the expected number agreed.
    """
    if rows <= 0 or share <= 0.0 or agreed >= rows * share:
        return 1.0
    if share >= 1.0:
        return 0.0
    log_term = (
        math.lgamma(rows + 1)
        - math.lgamma(agreed + 1)
        - math.lgamma(rows - agreed + 1)
        + agreed * math.log(share)
        + (rows - agreed) * math.log1p(-share)
    )
    term = total = math.exp(log_term)
    odds = (1.0 - share) / share
    for k in range(agreed, 0, -1):
        term *= k / (rows - k + 1) * odds
        total += term
        if term < total * 1e-12:
            break
    return min(1.0, total)


def stuck_share(columns: NDArray[np.float64]) -> float:
    """The share of a sorted sample that is one and the same number; NaN where it is empty.

    A saturated or dead output says one number over and over.
    """
    if not len(columns):
        return math.nan
    first = columns[:, 0]
    starts = np.flatnonzero(np.concatenate([[True], first[1:] != first[:-1]]))
    runs = np.diff(np.concatenate([starts, [len(first)]]))
    return float(runs.max() / len(first))
