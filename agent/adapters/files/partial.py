"""A file that is being fetched: pre-sized data, and beside it a log of the blocks that have come.

Nothing is durable per block.  Instead the log carries a digest of each block, and after a restart
only blocks that still match theirs are believed: a power cut costs the blocks it tore and no more.
The log guards against the disk, not against the sender; the file's own SHA-256 does that, when the
package is adopted.
"""

import hashlib
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from agent.adapters.files.durable import CREATE, UPDATE, reserve, weather
from agent.adapters.files.leisure import AT_LEISURE, STEP_BYTES, Pace
from agent.core.chunks import Span, blocks_of, span_of, subtract
from agent.core.packages import CHUNK_BYTES

_DIGEST_BYTES = 16
_RECORD = struct.Struct(f">I{_DIGEST_BYTES}s")
_SYNC_BYTES = 256 * 1024
_sync = getattr(os, "fdatasync", os.fsync)


class FilePartial:
    """A `ports.Partial` at `path`, with its log at `path`.log.  One writer.

    Raises:
        UnavailableError: the disk has no room for `size` bytes, or said no.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        self._path = path
        self._unsynced = 0
        self._holes: list[Span] = [(0, size)] if size else []
        try:
            with weather(f"cannot make room for {path.name}"):
                if not self._is_ours():
                    self.remove()
                    self._create()
                self._fd = os.open(path, UPDATE)
                self._log = os.open(log_of(path), UPDATE | os.O_APPEND)
            with weather(f"cannot read {path.name}"):
                self._recover()
        except BaseException:
            self.close()
            raise

    def holes(self) -> Sequence[Span]:
        """Byte ranges (start, end) still wanted, ascending; empty when all is there."""
        return tuple(self._holes)

    def write(self, offset: int, chunk: bytes, pace: Pace = AT_LEISURE) -> None:
        """Put `chunk` where it belongs.  Not durable yet; no need: see above.  Ends early where it
        is closed meanwhile.

        Raises:
            UnavailableError: the disk said no.
            ValueError: it lies outside the file (a fetcher checks that first).
        """
        end = offset + len(chunk)
        if offset < 0 or end > self.size:
            msg = f"bytes {offset} to {end} lie outside of {self.size}"
            raise ValueError(msg)
        view = memoryview(chunk)
        while view and self._fd >= 0:
            began = time.monotonic()
            size = min(len(view), STEP_BYTES - offset % STEP_BYTES)
            with weather(f"cannot write {self._path.name}"):
                self._put(offset, view[:size])
            view, offset = view[size:], offset + size
            pace.rest(began)

    def _put(self, offset: int, view: memoryview) -> None:
        end = offset + len(view)
        self._write_at(offset, view)
        self._holes = subtract(self._holes, offset, end)
        records = []
        for index in blocks_of([(offset, end)], CHUNK_BYTES):
            start, stop = span_of(index, self.size, CHUNK_BYTES)
            if offset <= start and stop <= end:
                digest = _digest_of(view[start - offset : stop - offset])
            elif not any(low < stop and start < high for low, high in self._holes):
                digest = self._digest(start, stop)
            else:
                continue
            records.append(_RECORD.pack(index, digest))
        os.write(self._log, b"".join(records))
        # Not to be safe, but a little at a time: whatever the disk has taken and not yet written
        # holds up the next commit on it.
        self._unsynced += len(view)
        if self._unsynced >= _SYNC_BYTES:
            _sync(self._fd)
            self._unsynced = 0

    def close(self) -> None:
        """Idempotent."""
        for name in ("_fd", "_log"):
            fd = getattr(self, name, -1)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)

    def remove(self) -> None:
        """Forget what came."""
        self._path.unlink(missing_ok=True)
        log_of(self._path).unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        """Whether a usable partial of this size lies there: regular, and nobody's second name."""
        if not log_of(self._path).is_file() or self._path.is_symlink() or not self._path.is_file():
            return False
        found = self._path.stat()
        return found.st_size == self.size and found.st_nlink == 1

    def _create(self) -> None:
        data = os.open(self._path, CREATE, 0o600)
        try:
            reserve(data, self.size, self._path.parent)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(data)
        os.close(os.open(log_of(self._path), CREATE, 0o600))

    def _recover(self) -> None:
        raw = log_of(self._path).read_bytes()
        whole = len(raw) - len(raw) % _RECORD.size
        os.ftruncate(self._log, whole)  # a torn last record would shift those to come
        latest = dict(_RECORD.iter_unpack(raw[:whole]))
        for index, digest in latest.items():
            start, end = span_of(index, self.size, CHUNK_BYTES)
            if start < end and self._digest(start, end) == digest:
                self._holes = subtract(self._holes, start, end)

    def _digest(self, start: int, end: int) -> bytes:
        os.lseek(self._fd, start, os.SEEK_SET)
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        while start < end and (part := os.read(self._fd, end - start)):
            digest.update(part)
            start += len(part)
        return digest.digest()

    def _write_at(self, offset: int, view: memoryview) -> None:
        os.lseek(self._fd, offset, os.SEEK_SET)
        while view:
            view = view[os.write(self._fd, view) :]


def _digest_of(block: memoryview) -> bytes:
    return hashlib.blake2b(block, digest_size=_DIGEST_BYTES).digest()


def log_of(path: Path) -> Path:
    """Where the log of the partial at `path` lies."""
    return path.with_name(f"{path.name}.log")
