"""What one version said last of each sensor: what another is held against whose windows differ."""

import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import grown
from agent.core.scores import ScoreColumns


class LastWords:
    """One row of scores by key; memory grows with the number of sensors, and no further."""

    def __init__(self) -> None:
        self._said = np.zeros(0, bool)
        self._score: NDArray[np.floating] = np.zeros((0, 1))
        self._label: NDArray[np.object_] = np.empty(0, object)
        self._alarm = np.zeros(0, bool)
        self._labels = self._alarms = False

    def heard(self, keys: NDArray[np.int32], columns: ScoreColumns) -> None:
        """Of a key that comes twice the later row stays."""
        if not len(keys):
            return
        rows = columns.score.reshape(len(keys), -1)
        if rows.shape[1] != self._score.shape[1]:
            self._said[:] = False
            self._score = np.zeros((len(self._said), rows.shape[1]))
        self._grow(int(keys.max()) + 1)
        self._score[keys] = rows
        self._said[keys] = True
        self._labels, self._alarms = columns.label is not None, columns.alarm is not None
        if columns.label is not None:
            self._label[keys] = columns.label
        if columns.alarm is not None:
            self._alarm[keys] = columns.alarm

    def known(self, keys: NDArray[np.int32]) -> NDArray[np.bool]:
        """Of which keys something was said."""
        if len(keys):
            self._grow(int(keys.max()) + 1)
        return self._said[keys]

    def of(self, keys: NDArray[np.int32]) -> ScoreColumns:
        """The rows of `keys`, of each of which something was said."""
        score = self._score[keys]
        return ScoreColumns(
            score[:, 0] if score.shape[1] == 1 else score,
            self._label[keys].tolist() if self._labels else None,
            self._alarm[keys].tolist() if self._alarms else None,
        )

    def _grow(self, keys: int) -> None:
        self._said = grown(self._said, keys)
        self._score = grown(self._score, len(self._said))
        self._alarm = grown(self._alarm, len(self._said))
        if len(self._label) < len(self._said):
            more = np.empty(len(self._said) - len(self._label), object)
            self._label = np.concatenate([self._label, more])
