"""A question to the live session: score these inputs now, count nothing (the command `score`)."""

from collections.abc import Mapping
from concurrent.futures import Future

import numpy as np

from agent.core.blocks import Block, Column
from agent.core.errors import RefusedError
from agent.core.scores import ScoreColumns
from agent.runtime.batches import Chunk
from agent.runtime.scoring import Scoring

ROWS_MAX = 1024


def ask(scoring: Scoring, inputs: object, now: float) -> "Future[ScoreColumns]":
    """Put `inputs`, {feature: [values]}, to the active version.

    On the lane's thread; `now` is monotonic.

    Each row goes through the same ranges, scaling and tensors as a reading.  A version with windows
    or state has no answer to a single row.

    Raises:
        RefusedError: no version is active, or the inputs are not its features.
    """
    seat = scoring.slot.seat
    if seat is None:
        raise RefusedError(f"{scoring.model} has no active version", 409)
    if seat.manifest.window is not None or seat.states is not None:
        raise RefusedError(f"{scoring.model} scores windows or keeps state: it has no single rows")
    columns = _columns(inputs, seat.manifest.features.names)
    n = len(next(iter(columns.values())))
    keys, times = np.arange(n, dtype=np.int32), np.zeros(n)  # no row holds a value for the next
    block = Block(keys, times, columns, 0.0)
    rows = type(seat.featurizer)(seat.manifest.features).featurize(block)
    if len(rows.keys) != n:
        raise RefusedError(f"{n - len(rows.keys)} of {n} rows are out of range or miss a feature")
    asked: Future[ScoreColumns] = Future()
    asked.set_running_or_notify_cancel()  # who gives up on it cannot take it from us
    scoring.put(Chunk(seat, keys, times, rows.values, 0, now, [], asked), now)
    return asked


def _columns(inputs: object, names: tuple[str, ...]) -> dict[str, Column]:
    if not isinstance(inputs, Mapping):
        raise RefusedError(f"score: args.inputs is an object of lists: {', '.join(names)}")
    columns = {}
    for name in names:
        values = inputs.get(name)
        if isinstance(values, int | float) and not isinstance(values, bool):
            values = [values]
        try:
            columns[name] = np.array(values, np.float64)
        except (TypeError, ValueError) as error:
            raise RefusedError(f"score: args.inputs.{name} is no list of numbers") from error
        if columns[name].ndim != 1 or not 0 < len(columns[name]) <= ROWS_MAX:
            raise RefusedError(f"score: args.inputs.{name} wants 1 to {ROWS_MAX} numbers")
    if len({len(column) for column in columns.values()}) != 1:
        raise RefusedError("score: the lists of args.inputs differ in length")
    return columns
