"""Output tensors into score columns, and these into the message that consumers read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from agent.core.arrays import Array
from agent.core.errors import UnfitError
from agent.core.manifest import Label, Output, Score

SCHEMA = 1
_COLUMNS = ("key", "time", "score", "label", "alarm")
_ROWWISE = {"seq", *_COLUMNS}


@dataclass(frozen=True, slots=True)
class Known:
    """What a version is asked, a value of each feature a row, and the columns that it gives."""

    release: int
    features: tuple[str, ...]
    outputs: tuple[str, ...]  # score, label, alarm
    dtype: str = "float32"  # of the score, or float64
    width: int = 1  # of the score; -1: it is not known


@dataclass(slots=True)
class ScoreColumns:
    """Scores of n rows.

    score  [n] or [n, k]: float32 if the model gives float32 (so that it is written as short as it
           is exact), else float64
    label  [n] or None: the manifest asks for no label
    alarm  [n] or None: the manifest sets no threshold; NaN never alarms
    """

    score: NDArray[np.floating]
    label: list[str] | None = None
    alarm: list[bool] | None = None

    def rows(self, chosen: NDArray[np.bool]) -> "ScoreColumns":
        """The rows that are chosen [n]."""
        return ScoreColumns(
            self.score[chosen],
            None if self.label is None else list(compress(self.label, chosen)),
            None if self.alarm is None else list(compress(self.alarm, chosen)),
        )


def extract(output: Output, names: Sequence[str], outputs: Sequence[Array], n: int) -> ScoreColumns:
    """The score columns in `outputs`, tensors called `names`, for n rows.

    Raises:
        UnfitError: a tensor is not there, or is not of n rows.
    """
    score = _score(output.score, _tensor(output.score.tensor, names, outputs, n))
    label = None
    if output.label is not None:
        label = _labels(output.label, _tensor(output.label.tensor, names, outputs, n))
    alarm = None
    if output.score.threshold is not None:
        with np.errstate(invalid="ignore"):
            above = score >= output.score.threshold  # compared as float32 if the score is
        alarm = [bool(np.any(row)) for row in above] if above.ndim > 1 else above.tolist()
    return ScoreColumns(score, label, alarm)


def encode(
    *,
    model: str,
    release: int,
    stream: str,
    epoch: int,
    seq: int,
    keys: Sequence[str],
    times: NDArray[np.float64],
    columns: ScoreColumns,
    supersedes: Mapping[str, Any] | None = None,
) -> bytes:
    """The message of one batch (interface.md §5.3); numbers that are not finite become null."""
    body: dict[str, Any] = {
        "schema": SCHEMA,
        "model": model,
        "release": release,
        "stream": stream,
        "epoch": epoch,
        "seq": seq,
        "key": list(keys),
        "time": np.ascontiguousarray(times),
        "score": np.ascontiguousarray(columns.score),
    }
    if columns.label is not None:
        body["label"] = columns.label
    if columns.alarm is not None:
        body["alarm"] = columns.alarm
    if supersedes is not None:
        body["supersedes"] = dict(supersedes)
    raw = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return bytes(memoryview(raw))  # orjson leaves up to 4 KB of room behind it, and many are kept


def split(body: bytes, bytes_max: int) -> list[bytes]:
    """A message of scores as several of at most `bytes_max`, in order, each whole in itself.

    A single row that is larger stays as it is, and so does what is no such message.  For brokers
    that take less than a batch gives.
    """
    if len(body) <= bytes_max:
        return [body]
    whole = _read(body)
    if whole is None or len(whole["key"]) < 2:
        return [body]
    half = len(whole["key"]) // 2
    head = {k: v[:half] if k in _COLUMNS else v for k, v in whole.items()}
    tail = {k: v[half:] if k in _COLUMNS else v for k, v in whole.items()}
    tail["seq"] += half
    if (old := whole.get("supersedes")) is not None:  # as many rows as these, one by one
        head["supersedes"] = {**old, "rows": half}
        tail["supersedes"] = {**old, "seq": old["seq"] + half, "rows": old["rows"] - half}
    return [part for each in (head, tail) for part in split(orjson.dumps(each), bytes_max)]


def join(bodies: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Messages of one model, in order, as fewer: how many each is made of, and it.

    Only those are made one whose numbers follow each other and that differ in their rows alone;
    one that supersedes others stays as it is.  What is no such message stays as it is, too.
    """
    made: list[tuple[int, bytes]] = []
    last: dict[str, Any] | None = None
    for body in bodies:
        whole = _read(body)
        if last is not None and whole is not None and _follows(last, whole):
            for column in _COLUMNS:
                if column in last:
                    last[column] += whole[column]
            made[-1] = (made[-1][0] + 1, b"")
        else:
            _write(made, last)
            made.append((1, body))
            last = whole
    _write(made, last)
    return made


def _write(made: list[tuple[int, bytes]], last: dict[str, Any] | None) -> None:
    if made and made[-1][0] > 1:
        made[-1] = (made[-1][0], orjson.dumps(last))


def _read(body: bytes) -> dict[str, Any] | None:
    """A message of scores, if it is one."""
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(whole, dict):
        return None
    columns = [whole[column] for column in _COLUMNS if column in whole]
    fit = all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns)
    return whole if "key" in whole and fit and isinstance(whole.get("seq"), int) else None


def _follows(last: dict[str, Any], whole: dict[str, Any]) -> bool:
    return (
        "supersedes" not in last
        and whole["seq"] == last["seq"] + len(last["key"])
        and last.keys() == whole.keys()
        and all(last[name] == whole[name] for name in last if name not in _ROWWISE)
    )


def _tensor(name: str, names: Sequence[str], outputs: Sequence[Array], n: int) -> Array:
    """The output `name` as [n] or [n, k]."""
    if name not in names:
        raise UnfitError(f"[output] speaks of {name}; the model gives {', '.join(names)}")
    array = outputs[list(names).index(name)]
    if not isinstance(array, np.ndarray):
        raise UnfitError(
            f"the output {name} is no tensor but a {type(array).__name__} "
            "(scikit-learn: convert with zipmap=False)"
        )
    if array.ndim == 0 or array.shape[0] != n:
        raise UnfitError(f"the output {name} has the shape {list(array.shape)} for {n} rows")
    flat = array.reshape(n, math.prod(array.shape[1:]))
    if flat.shape[1] == 0:
        raise UnfitError(f"the output {name} is empty")
    return flat[:, 0] if flat.shape[1] == 1 else flat


def _score(score: Score, array: Array) -> NDArray[np.floating]:
    if array.dtype.kind not in "fiub":
        raise UnfitError(f"the output {score.tensor} holds {array.dtype}, which is no score")
    if score.column is not None:
        width = array.shape[1] if array.ndim == 2 else 1
        if not -width <= score.column < width:
            raise UnfitError(f"the output {score.tensor} has no column {score.column}: {width}")
        array = array.reshape(len(array), width)[:, score.column]
    narrow = array.dtype in (np.float32, np.float16)
    return array.astype(np.float32 if narrow else np.float64, copy=False)


def _labels(label: Label, array: Array) -> list[str]:
    """Text as it is; numbers through the names; of several columns the highest."""
    if array.dtype.kind in "OUS":
        if array.ndim != 1:
            raise UnfitError(f"the output {label.tensor} has several labels for one row")
        return [_text(one) for one in array.tolist()]
    if array.dtype.kind not in "fiub":
        raise UnfitError(f"the output {label.tensor} holds {array.dtype}, which is no label")
    if array.ndim == 2:
        array = array.argmax(axis=1)
    if array.dtype.kind == "f":
        array = np.nan_to_num(np.rint(array), nan=-1.0).clip(-(2**53), 2**53).astype(np.int64)
    names = label.names or ()
    return [names[i] if 0 <= i < len(names) else str(i) for i in map(int, array.tolist())]


def _text(label: object) -> str:
    text = label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
    return text.encode("utf-8", "replace").decode()
