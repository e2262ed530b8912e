"""What two versions said of the same windows: how often they agree, how far their scores lie apart.

`ours` is the version that is judged, `theirs` the one it is held against.  Fixed memory, whatever
the number of rows.
"""

import math
from dataclasses import dataclass, field
from operator import eq

import numpy as np
from numpy.typing import NDArray

from agent.core.latency import Recent
from agent.core.samples import Reservoir, distance, stuck_share
from agent.core.scores import ScoreColumns

ROWS_WORTH_A_LOOK = 32  # fewer say nothing, however bad they look


@dataclass(slots=True)
class Comparison:
    """Rows that both have scored.

    Two rows agree if their labels are equal; where there are none, if both or neither raise the
    alarm; where there is no threshold either, if the scores lie within `atol + rtol·|theirs|`.
    """

    rtol: float = 1e-3
    atol: float = 1e-4
    rows: int = 0
    agreed: int = 0
    ours: Reservoir = field(default_factory=Reservoir)
    theirs: Reservoir = field(default_factory=Reservoir)
    run_ours: Recent = field(default_factory=lambda: Recent(5.0, 5))  # ms of a run of one batch
    run_theirs: Recent = field(default_factory=lambda: Recent(5.0, 5))
    _squares: float = 0.0  # Σ disagreed² by batch, and Σ rows²: how much they come in clusters
    _rows_squares: float = 0.0
    _cross: float = 0.0

    def add(self, ours: ScoreColumns, theirs: ScoreColumns) -> int:
        """Row i of both is of one window.  Returns how many are no finite number of ours alone."""
        n = len(theirs.score)
        finite, expected = _finite(ours.score, n), _finite(theirs.score, n)
        same = self._same(ours, theirs)
        agreed = int(np.count_nonzero(np.where(finite & expected, same, finite == expected)))
        self.rows += n
        self.agreed += agreed
        self._squares += (n - agreed) ** 2
        self._rows_squares += n * n
        self._cross += (n - agreed) * n
        both = finite & expected
        self.ours.add(ours.score[both])
        self.theirs.add(theirs.score[both])
        return int(np.count_nonzero(expected & ~finite))

    def ran(self, ours_ms: float, theirs_ms: float, now: float) -> None:
        """How long each took for the same batch; `now` is monotonic."""
        self.run_ours.add(ours_ms, 1, now)
        self.run_theirs.add(theirs_ms, 1, now)

    @property
    def agreement(self) -> float:
        """Share of rows that agree; NaN if there are none."""
        return self.agreed / self.rows if self.rows else math.nan

    @property
    def score_distance(self) -> float:
        """See `samples.distance`; NaN if there is nothing to compare."""
        return distance(self.ours.columns(), self.theirs.columns())

    @property
    def stuck(self) -> float:
        """Share of our scores that are one and the same number."""
        return stuck_share(self.ours.columns())

    @property
    def worth(self) -> float:
        """How many rows the agreement is worth, rows of one batch being no independent witnesses.

        The design effect: the variance between batches of the share that disagrees, over what rows
        drawn one by one would have (Kish 1965; the ratio estimator for clusters of unequal size).
        """
        missed = self.rows - self.agreed
        if not missed or not self.agreed:
            return float(self.rows)
        share = missed / self.rows
        between = self._squares - 2 * share * self._cross + share * share * self._rows_squares
        effect = between / (self.rows * share * (1 - share))
        return self.rows / max(1.0, effect)

    def _same(self, ours: ScoreColumns, theirs: ScoreColumns) -> NDArray[np.bool]:
        n = len(theirs.score)
        if ours.label is not None and theirs.label is not None:
            return np.fromiter(map(eq, ours.label, theirs.label), bool, n)
        if ours.alarm is not None and theirs.alarm is not None:
            return np.fromiter(map(eq, ours.alarm, theirs.alarm), bool, n)
        mine = ours.score.reshape(n, -1).astype(np.float64)
        other = theirs.score.reshape(n, -1).astype(np.float64)
        if mine.shape != other.shape:
            return np.zeros(n, bool)
        with np.errstate(invalid="ignore"):
            off = np.abs(mine - other) - (self.atol + self.rtol * np.abs(other))
        same: NDArray[np.bool] = np.max(off, axis=1) <= 0.0
        return same


def _finite(score: NDArray[np.floating], n: int) -> NDArray[np.bool]:
    finite: NDArray[np.bool] = np.all(np.isfinite(score.reshape(n, -1)), axis=1)
    return finite
