"""Readings from a file that grows, as loggers and PLC gateways write them: one line, one payload.

Follows the file through rotation (a new file under the old name), truncation, and absence.  A
thread of watchdog only rings; the lane's thread reads.  Where the kernel offers no notification
(network drives, exhausted watches) the file is looked at once a second.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import structlog
from watchdog.observers import Observer

from agent.adapters.tail.lines import Lines
from agent.adapters.tail.ringer import Ringer
from agent.core.errors import RefusedError
from agent.ports import Burst, Source

CHUNK_BYTES = 256 * 1024
LINE_BYTES_MAX = 1024 * 1024
HEAD_BYTES_SURE = 512  # this much of it, under the same name, is proof even if the inode changed
TICK_S = 1.0
ROTATE_S = 1.0  # a writer may go on in the renamed file for a moment
SIBLINGS_MAX = 1000
LINE_FORMATS = ("json", "ndjson", "csv")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in which file: `head` is the hash of its first `head_bytes` bytes."""

    inode: int
    offset: int
    head_bytes: int
    head: str
    skip: bool = False  # inside a line that was too long, and has been given already


class TailSource(Source):
    """One stream from one growing file of lines.

    Only whole lines are delivered, without their line end; empty ones are not.  A line of more than
    `line_bytes_max` bytes is delivered cut, so that it is rejected and counted, not lost.  Without
    a mark the file is read from its beginning.  After a restart the rest of a file that was renamed
    in the meantime is looked for beside it, and read first.

    Args:
        stream: the stream's name.
        path: the file; it may appear later, and its folder too.
        line_format: json or ndjson (one document a line), or csv.
        header: whether each file begins with a line that names the columns; after a restart in the
            middle of a file that line is delivered again, first.  None: csv has, the others not.
        line_bytes_max: longest line that is delivered whole.
        clock: monotonic seconds.

    Raises:
        RefusedError: the format has no lines.
    """

    def __init__(
        self,
        stream: str,
        path: Path,
        line_format: str = "ndjson",
        *,
        header: bool | None = None,
        line_bytes_max: int = LINE_BYTES_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if line_format not in LINE_FORMATS:
            msg = f"stream {stream}: a tailed file is {', '.join(LINE_FORMATS)}, not {line_format}"
            raise RefusedError(msg)
        self.name = f"file:{path}"
        self._stream = stream
        self._path = path
        self._has_header = line_format == "csv" if header is None else header
        self._line_bytes_max = line_bytes_max
        self._clock = clock
        self._file: BinaryIO | None = None
        self._inode = 0
        self._lines = Lines(line_bytes_max)
        self._rotated_at: float | None = None
        self._wish: _Place | None = None
        self._why = f"{path} has not been looked at yet"
        self._bell, ring = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer = Ringer(path.name, ring)
        self._observer = Observer()
        self._is_watching = False
        self._is_blind = False

    # ---- the port ----

    def fileno(self) -> int:
        """Rings when the file may have grown."""
        return self._bell.fileno()

    def wants_write(self) -> bool:
        """Never."""
        return False

    def read(self, readings_max: int) -> Sequence[Burst]:
        """Lines that have come, up to about `readings_max`."""
        # Quiet first, then read: what comes in between rings again.
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(4096):
                pass
        lines: list[bytes] = []
        try:
            while self._file is not None or self._open(lines):
                assert self._file is not None
                chunk = self._file.read(CHUNK_BYTES)
                if chunk:
                    lines += self._lines.cut(chunk)
                elif not self._moved_on(lines):
                    break
                if len(lines) >= readings_max:
                    self._ringer.ring()
                    break
        except OSError as error:
            if self._file is not None:
                self._wish = self._place()
                self._let_go()
            self._why = f"cannot read {self._path}: {error.strerror or error}"
        if not lines:
            return ()
        return [
            Burst(
                self._stream, lines, self._clock(), mark=json.dumps(asdict(self._place())).encode()
            )
        ]

    def accept(self, tokens: Sequence[object]) -> None:
        """Nothing to tell a file."""

    def resume(self, mark: bytes) -> None:
        """Go on where the mark says; one that cannot be read is said in the log and ignored."""
        try:
            document = json.loads(mark)
            self._wish = _Place(
                int(document["inode"]),
                int(document["offset"]),
                int(document["head_bytes"]),
                str(document["head"]),
                bool(document["skip"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            log.warning("mark_ignored", source=self.name, why=repr(error))

    def tick(self, now: float) -> float:
        """Look whether there is more, for where nobody rings."""
        if not self._is_watching:
            self._watch()
        if self._file is None or self._grown() or self._rotated_at is not None:
            self._ringer.ring()
        return now + TICK_S

    def trouble(self) -> str:
        """Why no lines can come, in a sentence."""
        return self._why

    def close(self) -> None:
        """Let go of the file and the watch."""
        if self._is_watching:
            self._observer.stop()
            self._observer.join()
            self._is_watching = False
        self._let_go()
        self._bell.close()
        self._ringer.close()

    # ---- the watch ----

    def _watch(self) -> None:
        if not self._path.parent.is_dir():
            return
        try:
            self._observer.schedule(self._ringer, str(self._path.parent))
            self._observer.start()
        except OSError as error:  # no watches left, or a file system without
            if not self._is_blind:
                log.warning("file_not_watched", path=str(self._path), why=str(error), look_s=TICK_S)
            self._is_blind = True
            self._observer = Observer()
            return
        self._is_watching = True

    def _grown(self) -> bool:
        try:
            seen = self._path.stat()
        except OSError:
            return False
        return seen.st_ino != self._inode or seen.st_size != self._lines.seen

    # ---- which file ----

    def _open(self, lines: list[bytes]) -> bool:
        wish = self._wish
        if wish is not None:
            for path in [self._path, *self._siblings()]:
                if self._opened(path) and self._is_at(wish, path):
                    self._go_on(wish, lines)
                    self._wish = None
                    return True
                self._let_go()
        if not self._opened(self._path):
            self._why = f"{self._path} is not there yet"
            return False
        if wish is not None:
            log.warning("place_lost", path=str(self._path), offset=wish.offset)
            self._wish = None
        return True

    def _opened(self, path: Path) -> bool:
        try:
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            return False
        self._inode = os.fstat(self._file.fileno()).st_ino
        self._lines = Lines(self._line_bytes_max)
        self._rotated_at = None
        self._why = ""
        return True

    def _siblings(self) -> list[Path]:
        """What the file may have been renamed to, newest first."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self._path.parent) as entries:
            for entry, _ in zip(entries, range(SIBLINGS_MAX), strict=False):
                if entry.name.startswith(self._path.stem) and entry.is_file():
                    found.append((entry.stat().st_mtime, Path(entry.path)))
        return [path for _, path in sorted(found, reverse=True) if path != self._path]

    def _is_at(self, wish: _Place, path: Path) -> bool:
        """Whether the open file is the one in which `wish` is a place."""
        assert self._file is not None
        same = self._inode == wish.inode
        if not same and (path != self._path or wish.head_bytes < HEAD_BYTES_SURE):
            return False
        if os.fstat(self._file.fileno()).st_size < wish.offset:
            return False
        head = self._file.read(wish.head_bytes)
        return sha256(head).hexdigest() == wish.head

    def _go_on(self, wish: _Place, lines: list[bytes]) -> None:
        assert self._file is not None
        self._file.seek(0)
        head = self._file.read(wish.head_bytes)
        if self._has_header and wish.offset:
            self._file.seek(0)
            first = self._file.read(self._line_bytes_max).split(b"\n", 1)[0]
            lines.append(first.rstrip(b"\r"))
        self._file.seek(wish.offset)
        self._lines = Lines(self._line_bytes_max, head=head, offset=wish.offset, skips=wish.skip)

    def _moved_on(self, lines: list[bytes]) -> bool:
        """At the end of the file: whether there is something else to read under its name."""
        assert self._file is not None
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        if now.st_ino == self._inode:
            if now.st_size >= self._lines.seen:
                return False
            log.info("file_truncated", path=str(self._path))
        elif self._rotated_at is None or self._clock() - self._rotated_at < ROTATE_S:
            self._rotated_at = self._rotated_at or self._clock()
            return False
        lines += self._lines.finish()
        self._let_go()
        return self._opened(self._path)

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _place(self) -> _Place:
        head = self._lines.head[: self._lines.offset]
        return _Place(
            self._inode,
            self._lines.offset,
            len(head),
            sha256(head).hexdigest(),
            self._lines.skips,
        )
