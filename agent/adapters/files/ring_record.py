"""A scored batch as bytes and back, framed so that damage is seen and stepped over.

A frame begins with the mark of its file: eight random bytes that no sensor can know, so no reading
can pass for a frame, and what comes after a damaged one is found by looking for the next mark.
Everything behind the checksum is under it.  Sensors are written once per batch, rows as numbers of
them; arrays as they lie in memory, little-endian.  No I/O here.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from agent.ports import Scored

MARK_BYTES = 8

# mark, checksum of all that follows | body bytes, seq, release, before, rows, w, L (0: no axis), F,
# sensors, bytes of one value
_HEAD = struct.Struct("<8sIIqqqIIIIIB")
_CHECKED_FROM = MARK_BYTES + 4


class Given(NamedTuple):
    """A batch, and how many rows the ring was given of its stream and model before it."""

    scored: Scored
    before: int


class Frame(NamedTuple):
    """Where a whole record lies in its file, and which rows it is; `before` as in `Given`."""

    start: int
    stop: int
    seq: int
    rows: int
    before: int

    @property
    def end(self) -> int:
        """The number after its last row."""
        return self.seq + self.rows


def pack(mark: bytes, given: Given) -> bytes:
    """The frame of a batch for the file with this mark.

    Raises:
        ValueError: its arrays are not what `Scored` says they are.
    """
    scored = given.scored
    width = len(scored.times)
    values = scored.values
    if (
        values.dtype not in (np.float32, np.float64)
        or values.ndim not in (2, 3)
        or not width == len(scored.keys) == len(values)
        or scored.times.ndim != 1
        or scored.rows < 1
    ):
        msg = f"{values.dtype}{values.shape} with {len(scored.keys)} keys is no scored batch"
        raise ValueError(msg)
    numbers = {name: n for n, name in enumerate(dict.fromkeys(scored.keys))}
    names = [name.encode("utf-8", "surrogatepass") for name in numbers]
    size = values.dtype.itemsize
    parts = (
        np.fromiter(map(len, names), "<u4", len(names)),
        np.fromiter(map(numbers.__getitem__, scored.keys), _code(len(names)), width),
        np.ascontiguousarray(scored.times, "<f8"),
        np.ascontiguousarray(values, f"<f{size}"),
    )
    lengths, codes, times, cells = (part.tobytes() for part in parts)
    body = b"".join((lengths, *names, codes, times, cells))
    length = values.shape[1] if values.ndim == 3 else 0
    fields = (len(body), scored.seq, scored.release, given.before, scored.rows)
    try:
        head = _HEAD.pack(mark, 0, *fields, width, length, values.shape[-1], len(names), size)
    except struct.error as error:
        msg = f"{fields} does not fit a frame: {error}"
        raise ValueError(msg) from error
    checksum = zlib.crc32(body, zlib.crc32(head[_CHECKED_FROM:]))
    return b"".join((mark, checksum.to_bytes(4, "little"), head[_CHECKED_FROM:], body))


def frames(raw: bytes, mark: bytes, start: int) -> Iterator[Frame]:
    """The whole frames in `raw` from `start` on; damaged ones and what is torn are stepped over."""
    view = memoryview(raw)
    at = raw.find(mark, start)
    while at >= 0:
        frame = _frame(view, at)
        if frame is None:
            at = raw.find(mark, at + 1)
        else:
            yield frame
            at = raw.find(mark, frame.stop)


def unpack(raw: bytes, frame: Frame) -> Scored | None:
    """What was packed; None if it makes no sense although its checksum is right."""
    fields = _HEAD.unpack_from(raw, frame.start)
    _, _, _, seq, release, _, rows, width, length, features, sensors, size = fields
    code = _code(sensors)
    at, stop = frame.start + _HEAD.size, frame.stop
    cells = width * (length or 1) * features
    fixed = 4 * sensors + width * (code.itemsize + 8) + cells * size
    if size not in (4, 8) or at + fixed > stop:
        return None
    lengths = np.frombuffer(raw, "<u4", sensors, at).tolist()
    if at + fixed + sum(lengths) != stop:
        return None
    at += 4 * sensors
    names = []
    for count in lengths:
        try:
            names.append(raw[at : at + count].decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            return None
        at += count
    codes = np.frombuffer(raw, code, width, at).tolist()
    at += width * code.itemsize
    if max(codes, default=-1) >= sensors:
        return None
    shape = (width, length, features) if length else (width, features)
    return Scored(
        seq=seq,
        rows=rows,
        release=release,
        keys=[names[n] for n in codes],
        # copies: aligned, and not holding the whole file in memory
        times=np.frombuffer(raw, "<f8", width, at).astype(np.float64),
        values=np.frombuffer(raw, f"<f{size}", cells, at + 8 * width)
        .astype(np.float32 if size == 4 else np.float64)
        .reshape(shape),
    )


def _frame(view: memoryview, at: int) -> Frame | None:
    if at + _HEAD.size > len(view):
        return None
    _, checksum, body, seq, _, before, rows, *_ = _HEAD.unpack_from(view, at)
    stop = at + _HEAD.size + body
    if stop > len(view) or zlib.crc32(view[at + _CHECKED_FROM : stop]) != checksum:
        return None
    return Frame(at, stop, seq, rows, before)


def _code(sensors: int) -> "np.dtype[np.unsignedinteger]":
    """The smallest type that numbers so many sensors."""
    return np.dtype("<u1" if sensors <= 2**8 else "<u2" if sensors <= 2**16 else "<u4")
