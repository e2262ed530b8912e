"""One file of the ring: a head that says whose it is, then frames, only ever added at the end.

Nothing is synced: what was written outlives the process, not a power cut.
"""

import os
import secrets
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.adapters.files.durable import CREATE, UPDATE, open_regular
from agent.adapters.files.ring_record import MARK_BYTES, Frame, Given, frames, pack

FORMAT = 1
SUFFIX = ".seg"
BLOCK_BYTES = 4096  # what the smallest file takes of a disk

_MAGIC = b"EDGERING"
_HEAD = struct.Struct(f"<8sHHH{MARK_BYTES}s")  # magic, format, bytes of stream and model, mark
_CHECKSUM_BYTES = 4
_HEAD_BYTES_MAX = 1024

Pair = tuple[str, str]  # stream, model


class Segment:
    """Batches of one stream and model.  Their first rows are numbered `first` to `last`, no row of
    theirs is numbered `end` or above.

    `rows` were written, and `lost` of them found damaged since.  `since` and `until` say how many
    rows the ring had been given before the first of these and with the last.  A new one is no file
    before its first `write`.
    """

    def __init__(self, path: Path, pair: Pair, mark: bytes, head: bytes) -> None:
        self.path = path
        self.pair = pair
        self.mark = mark
        self.size = 0  # bytes of it that are whole
        self.first = self.last = self.end = self.rows = self.lost = self.since = self.until = 0
        self.is_even = True  # each batch is numbered where the one before it ends
        self.is_sealed = False  # nothing may be added
        self._head = head

    @classmethod
    def new(cls, folder: Path, number: int, pair: Pair) -> "Segment":
        """One with nothing in it, the `number`-th of the ring."""
        mark = secrets.token_bytes(MARK_BYTES)
        names = [name.encode() for name in pair]
        head = _HEAD.pack(_MAGIC, FORMAT, len(names[0]), len(names[1]), mark) + b"".join(names)
        path = folder / f"{number:016x}{SUFFIX}"
        return cls(path, pair, mark, head + zlib.crc32(head).to_bytes(_CHECKSUM_BYTES, "little"))

    @classmethod
    def found(cls, path: Path, bytes_max: int) -> "Segment | None":
        """The one at `path`, without what is torn at its end; None if there is nothing to read.

        Raises:
            OSError: the disk said no, or it is no file of ours.
        """
        with open_regular(path) as file:
            raw = file.read(bytes_max + 1)
        read = _read_head(raw)
        if read is None or len(raw) > bytes_max:
            return None
        pair, mark, head = read
        segment = cls(path, pair, mark, head)
        for frame in frames(raw, mark, len(head)):
            segment._took(frame)
        if segment.rows and segment.size < len(raw):
            segment._shorten(segment.size)
        return segment if segment.rows else None

    @property
    def is_new(self) -> bool:
        """Whether there is no file yet."""
        return self.size == 0

    def weight(self, more: int = 0) -> int:
        """What it takes of the disk, with so many bytes more."""
        size = (self.size or (len(self._head) if more else 0)) + more
        return -(-size // BLOCK_BYTES) * BLOCK_BYTES

    def packed(self, batches: Sequence[Given], size_max: int) -> list[bytes]:
        """As many of `batches` as fit into `size_max`, and the first at any rate into a new file.

        Raises:
            ValueError: the first of them is no scored batch.
        """
        records: list[bytes] = []
        room = size_max - (self.size or len(self._head))
        for given in batches:
            try:
                record = pack(self.mark, given)
            except ValueError:
                if not records:
                    raise
                break
            room -= len(record)
            if room < 0 and (records or not self.is_new):
                break
            records.append(record)
        return records

    def write(self, records: Sequence[bytes], batches: Sequence[Given]) -> None:
        """Add `records`, the bytes of `batches`: all or none.

        Raises:
            OSError: the disk said no; nothing will be added to this file any more.
        """
        head = self._head if self.is_new else b""
        flags = CREATE if self.is_new else UPDATE
        raw = memoryview(b"".join((head, *records)))
        try:
            with os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=0) as file:
                file.seek(self.size)
                written = 0
                while written < len(raw):
                    written += file.write(raw[written:])
        except OSError:
            self._shorten(self.size)
            self.is_sealed = True
            raise
        at = self.size + len(head)
        for record, (scored, before) in zip(records, batches, strict=True):
            self._took(Frame(at, at + len(record), scored.seq, scored.rows, before))
            at += len(record)

    def load(self) -> bytes:
        """All of it that was whole when it was written.  OSError as it comes."""
        with open_regular(self.path) as file:
            return file.read(self.size)

    def frames(self, raw: bytes) -> Iterator[Frame]:
        """The frames in what `load` gave."""
        return frames(raw, self.mark, len(self._head))

    def cut(self, seq: int) -> None:
        """Give up all batches from `seq` on; with no `rows` left it is of no more use.

        Raises:
            OSError: the disk said no.
        """
        kept = [frame for frame in self.frames(self.load()) if frame.seq < seq]
        self.rows = self.lost = 0
        for frame in kept:
            self._took(frame)
        if kept:
            self._shorten(self.size)

    def _took(self, frame: Frame) -> None:
        if not self.rows:
            self.first, self.end, self.since = frame.seq, frame.end, frame.before
        elif frame.before == self.until and frame.seq != self.end:
            self.is_even = False
        self.last, self.end = frame.seq, max(self.end, frame.end)
        self.until = frame.before + frame.rows
        self.rows += frame.rows
        self.size = frame.stop

    def _shorten(self, size: int) -> None:
        """Cut off what is behind `size`; a disk that refuses even that gets nothing more."""
        try:
            with os.fdopen(os.open(self.path, UPDATE), "r+b", buffering=0) as file:
                file.truncate(size)
        except OSError:
            self.is_sealed = True


def _read_head(raw: bytes) -> tuple[Pair, bytes, bytes] | None:
    """Whose file this is, its mark, and its head as it is; None if it is none of this format."""
    if len(raw) < _HEAD.size:
        return None
    magic, version, stream, model, mark = _HEAD.unpack_from(raw)
    stop = _HEAD.size + stream + model
    if magic != _MAGIC or version != FORMAT or stop > min(len(raw), _HEAD_BYTES_MAX):
        return None
    whole = stop + _CHECKSUM_BYTES
    if zlib.crc32(raw[:stop]) != int.from_bytes(raw[stop:whole], "little"):
        return None
    names = raw[_HEAD.size : stop]
    try:
        pair = (names[:stream].decode(), names[stream:].decode())
    except UnicodeDecodeError:
        return None
    return pair, mark, raw[:whole]
