"""What the ring has on the disk: segments by stream and model, their bound, and what was given up.

Any thread may call; a call holds one lock for as long as the disk takes, so none of them is for the
lane.  OSError comes out of `open` and `keep` only.
"""

import errno
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import structlog

from agent.adapters.files.ring_record import Given, unpack
from agent.adapters.files.ring_segment import BLOCK_BYTES, SUFFIX, Pair, Segment
from agent.adapters.files.ring_shelf import Shelf
from agent.ports import Scored

SEGMENT_BYTES_MAX = 2**20
SEGMENTS_A_SHARE = 8  # what is given up at once is about this part of what one model may have
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

logger = structlog.get_logger(__name__)


class Shelves:
    """Segments under `folder`, together at most `bytes_max` bytes in blocks of the disk.

    `spare_bytes` of the disk are left to others.  `file_bytes_max` is more than any segment has.
    """

    def __init__(
        self, folder: Path, bytes_max: int, *, spare_bytes: int, file_bytes_max: int
    ) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._spare_bytes = spare_bytes
        self._file_bytes_max = file_bytes_max
        self._lock = threading.Lock()
        self._shelves: dict[Pair, Shelf] = {}
        self._number = 0  # of the newest segment
        self._stuck: list[Segment] = []  # that the disk would not let go of
        self.bytes = 0

    def open(self) -> None:
        """Take up what an earlier process has left.  OSError if the folder cannot be had."""
        with self._lock:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in sorted(self._folder.glob(f"*{SUFFIX}")):
                try:
                    self._number = max(self._number, int(path.stem, 16))
                    segment = Segment.found(path, self._file_bytes_max)
                    if segment is None:
                        logger.warning("ring file of no use, removed", path=str(path))
                        path.unlink()
                    else:
                        self._take_up(segment)
                except (OSError, ValueError) as error:
                    logger.warning("ring file left out", path=str(path), why=str(error))
            self._make_room(0, None, None)

    def keep(self, pair: Pair, batches: Sequence[Given], first: int) -> None:
        """Add `batches`, giving up what has to go for them; number `first` came first since `open`.

        Raises:
            OSError: the disk said no; what is not kept is counted.
        """
        with self._lock:
            shelf = self._joined(pair, first)
            todo = batches
            try:
                while todo:
                    todo = todo[self._keep_some(shelf, pair, todo) :]
            except OSError as error:
                self._skip(shelf, todo)
                if error.errno in FULL:
                    self._give_up_oldest(None, None)
                raise

    def skip(self, pair: Pair, batches: Sequence[Given], first: int) -> None:
        """Count `batches` as given up."""
        with self._lock:
            self._skip(self._joined(pair, first), batches)

    def join(self, pair: Pair, first: int) -> None:
        """What this process is going to add is numbered from `first` on."""
        with self._lock:
            if pair in self._shelves:
                self._joined(pair, first)

    def forget(self, pair: Pair, below: int) -> None:
        """Rows below this number are wanted no more."""
        with self._lock:
            shelf = self._shelves.setdefault(pair, Shelf())
            shelf.floor = max(shelf.floor, below)
            while shelf.segments and shelf.segments[0].end <= below:
                self._remove(shelf.segments.popleft())

    def read(self, pair: Pair, seq: int) -> Iterator[Scored]:
        """What is kept now with rows at or after `seq`; what goes before it is read is left out."""
        with self._lock:
            shelf = self._shelves.get(pair, Shelf())
            last = shelf.segments[-1].last if shelf.segments else 0
            return self._read(shelf, list(shelf.segments), seq, last)

    def _read(
        self, shelf: Shelf, segments: Sequence[Segment], seq: int, last: int
    ) -> Iterator[Scored]:
        for segment in segments:
            with self._lock:  # a segment whole: it may be cut or given up meanwhile
                above = max(seq, shelf.floor)
                if segment not in shelf.segments or segment.end <= above:
                    continue
                lost = segment.rows
                try:
                    raw = segment.load()
                except OSError as error:
                    logger.warning("ring not read", path=str(segment.path), why=str(error))
                    raw = b""
            for frame in segment.frames(raw):
                if (scored := unpack(raw, frame)) is None:
                    continue
                lost -= frame.rows
                if frame.end > above and frame.seq <= last:
                    yield scored
            with self._lock:
                if segment in shelf.segments and lost > segment.lost:
                    logger.warning("ring file damaged", path=str(segment.path), rows=lost)
                    shelf.dropped += lost - segment.lost
                    segment.lost = lost

    def dropped(self, pair: Pair) -> int:
        """Rows given up since the start, or missing then.  Waits for nobody."""
        shelf = self._shelves.get(pair)
        return shelf.dropped if shelf is not None else 0

    # ---- with the lock ---------------------------------------------------------------------------

    def _take_up(self, segment: Segment) -> None:
        shelf = self._shelves.setdefault(segment.pair, Shelf())
        if shelf.reaches(segment.first + 1):  # a cut that did not reach the disk
            self._cut(shelf, segment.first)
        if shelf.segments:
            shelf.dropped += max(0, segment.since - shelf.until)
            follows = segment.since == shelf.until
            segment.is_even &= not follows or segment.first == shelf.segments[-1].end
        shelf.dropped += max(0, segment.until - segment.since - segment.rows)
        shelf.segments.append(segment)
        self.bytes += segment.weight()

    def _joined(self, pair: Pair, first: int) -> Shelf:
        """The shelf, where what this process is given follows what an earlier one has left.

        What was kept from `first` on did not become durable where it counts, or the store was lost:
        it is numbered again.  What is missing below went with its process; how much that was is
        known only where the numbers had run on without gaps.
        """
        shelf = self._shelves.setdefault(pair, Shelf())
        if not shelf.is_joined:
            shelf.is_joined = True
            self._cut(shelf, first)
            shelf.offset = shelf.until
            if shelf.segments and all(segment.is_even for segment in shelf.segments):
                missing = max(0, first - shelf.segments[-1].end)
                shelf.offset += missing
                shelf.dropped += missing
        return shelf

    def _went_back(self, shelf: Shelf, given: Given) -> None:
        """Where the numbers begin again, what was kept from there on goes; none is forgotten."""
        shelf.floor = min(shelf.floor, given.scored.seq)
        if shelf.reaches(given.scored.seq + 1):
            self._cut(shelf, given.scored.seq)
            shelf.offset = shelf.until - given.before

    def _keep_some(self, shelf: Shelf, pair: Pair, todo: Sequence[Given]) -> int:
        """Write as many of `todo` as go into one file; how many are done with."""
        self._went_back(shelf, todo[0])
        again = (n for n, (a, b) in enumerate(pairwise(todo), 1) if b.scored.seq < a.scored.seq)
        part = [Given(scored, n + shelf.offset) for scored, n in todo[: next(again, len(todo))]]
        segment = shelf.segments[-1] if shelf.segments else None
        size_max = self._segment_bytes_max()
        records: list[bytes] = []
        try:
            if segment is not None and not segment.is_sealed:
                records = segment.packed(part, size_max)
            if segment is None or not records:
                segment = Segment.new(self._folder, self._number + 1, pair)
                records = segment.packed(part, size_max)
        except ValueError as error:
            logger.error("batch not kept", stream=pair[0], model=pair[1], why=str(error))  # noqa: TRY400
            self._skip(shelf, todo[:1])
            return 1
        more = segment.weight(sum(map(len, records))) - segment.weight()
        if not self._make_room(more, shelf, segment):
            self._skip(shelf, todo[:1])
            return 1
        self._write(shelf, segment, records, part[: len(records)])
        return len(records)

    def _skip(self, shelf: Shelf, batches: Sequence[Given]) -> None:
        for given in batches:
            self._went_back(shelf, given)
            shelf.dropped += given.scored.rows

    def _write(
        self, shelf: Shelf, segment: Segment, records: Sequence[bytes], batches: Sequence[Given]
    ) -> None:
        is_new, before = segment.is_new, segment.weight()
        if is_new:
            self._number += 1
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if shutil.disk_usage(self._folder).free < self._spare_bytes + sum(map(len, records)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            segment.write(records, batches)
        except OSError:
            if is_new:
                segment.path.unlink(missing_ok=True)
            raise
        if is_new:
            shelf.segments.append(segment)
        self.bytes += segment.weight() - before

    def _segment_bytes_max(self) -> int:
        share = self._bytes_max // max(1, len(self._shelves))
        return max(BLOCK_BYTES, min(SEGMENT_BYTES_MAX, share // SEGMENTS_A_SHARE))

    def _make_room(self, more: int, asking: Shelf | None, current: Segment | None) -> bool:
        """Give up old segments until `more` fits; False if it cannot."""
        while self.bytes + more > self._bytes_max:
            if not self._give_up_oldest(asking, current, more):
                return False
        return True

    def _give_up_oldest(self, asking: Shelf | None, current: Segment | None, more: int = 0) -> bool:
        """Give up the oldest segment of whoever has most; False if there is none but `current`."""
        stuck, self._stuck = self._stuck, []
        for segment in stuck:
            self._remove(segment)
        having = [s for s in self._shelves.values() if s.segments and s.segments[0] is not current]
        if not having:
            return False
        most = max(having, key=lambda shelf: shelf.weight() + (more if shelf is asking else 0))
        segment = most.segments.popleft()
        most.gave_up(segment)
        self._remove(segment)
        return True

    def _cut(self, shelf: Shelf, seq: int) -> None:
        """Have no batch from `seq` on."""
        while shelf.reaches(seq):
            segment = shelf.segments[-1]
            before = segment.weight()
            try:
                if segment.first < seq:
                    segment.cut(seq)
            except OSError as error:
                logger.warning("ring not cut", path=str(segment.path), why=str(error))
                shelf.dropped += min(segment.rows - segment.lost, seq - segment.first)
            self.bytes += segment.weight() - before
            if segment.last >= seq or not segment.rows:
                shelf.segments.pop()
                self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("ring file stays", path=str(segment.path), why=str(error))
            self._stuck.append(segment)
        else:
            self.bytes -= segment.weight()
