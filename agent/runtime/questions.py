"""A question to the live session: score these inputs now, count nothing.  Lane's thread only."""

import math
from collections.abc import Mapping
from concurrent.futures import Future

import numpy as np

from agent.core.blocks import Block, Column
from agent.core.errors import RefusedError
from agent.core.scores import Known, ScoreColumns
from agent.runtime.batches import Chunk
from agent.runtime.scoring import Scoring
from agent.runtime.seats import Seat

ROWS_MAX = 1024


def known(scoring: Scoring) -> Known:
    """What the active version is asked and what it gives.  Raises RefusedError where none is."""
    seat = _seat(scoring, None)
    output = seat.manifest.output
    given = ["score"]
    if output.label is not None:
        given.append("label")
    if output.score.threshold is not None:
        given.append("alarm")
    tensor = next(one for one in seat.session.outputs if one.name == output.score.tensor)
    dtype = "float32" if tensor.dtype in ("float32", "float16") else "float64"
    axes = tensor.shape[1:] if output.score.column is None else ()
    sizes = [axis for axis in axes if isinstance(axis, int)]
    width = math.prod(sizes) if len(sizes) == len(axes) else -1
    return Known(seat.ref.release, seat.manifest.features.names, tuple(given), dtype, width)


def ask(
    scoring: Scoring,
    inputs: object,
    now: float,
    *,
    release: int | None = None,
    place: str = "inputs",
) -> "tuple[int, Future[ScoreColumns]]":
    """Put `inputs`, {feature: [values]}, to the active version; gives its release, too.

    `now` is monotonic; `release`: no other will do; `place`: what `inputs` are called to people.

    Each row goes through the same ranges, scaling and tensors as a reading.  A version with windows
    or state has no answer to a single row.

    Raises:
        RefusedError: no version is active (409), it is another (404), or the inputs are not its
            features.
    """
    seat = _seat(scoring, release)
    if seat.manifest.window is not None or seat.states is not None:
        raise RefusedError(f"{scoring.model} scores windows or keeps state: it has no single rows")
    columns = _columns(inputs, seat.manifest.features.names, place)
    n = len(next(iter(columns.values())))
    keys, times = np.arange(n, dtype=np.int32), np.zeros(n)  # no row holds a value for the next
    block = Block(keys, times, columns, 0.0)
    rows = type(seat.featurizer)(seat.manifest.features).featurize(block)
    if len(rows.keys) != n:
        raise RefusedError(f"{n - len(rows.keys)} of {n} rows are out of range or miss a feature")
    asked: Future[ScoreColumns] = Future()
    asked.set_running_or_notify_cancel()  # who gives up on it cannot take it from us
    scoring.put(Chunk(seat, keys, times, rows.values, 0, now, [], asked), now)
    return seat.ref.release, asked


def _seat(scoring: Scoring, release: int | None) -> Seat:
    seat = scoring.slot.seat
    if seat is None:
        raise RefusedError(f"{scoring.model} has no active version", 409)
    if release not in (None, seat.ref.release):
        raise RefusedError(f"{scoring.model}:{release} is not active; {seat.ref} is", 404)
    return seat


def _columns(inputs: object, names: tuple[str, ...], place: str) -> dict[str, Column]:
    if not isinstance(inputs, Mapping):
        raise RefusedError(f"{place} is an object of lists: {', '.join(names)}")
    columns = {}
    for name in names:
        if name not in inputs:
            raise RefusedError(f"{place}.{name} is missing; the features are {', '.join(names)}")
        values = inputs[name]
        if isinstance(values, int | float) and not isinstance(values, bool):
            values = [values]
        try:
            columns[name] = np.array(values, np.float64)
        except (TypeError, ValueError) as error:
            raise RefusedError(f"{place}.{name} is no list of numbers") from error
        if columns[name].ndim != 1 or not 0 < len(columns[name]) <= ROWS_MAX:
            raise RefusedError(f"{place}.{name} wants 1 to {ROWS_MAX} numbers")
    if len({len(column) for column in columns.values()}) != 1:
        raise RefusedError(f"the lists of {place} differ in length")
    return columns
