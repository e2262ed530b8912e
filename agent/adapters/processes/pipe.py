"""The lane's side of one worker: jobs into shared memory, answers out of it, never waiting.

Each job has a slot of the arena: inputs first, outputs behind them.  Slots that turn out too small
are replaced by larger ones further up; old places stay valid until their answers have come.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.adapters.processes.child import Child
from agent.ports import Answer, Array
from agent.worker import frames

CHUNK_BYTES = 1 << 18
SLOT_BYTES = 1 << 16  # to begin with; pages are only taken when written


@dataclass(slots=True)
class Slot:
    """A place in the arena, and what was last laid there."""

    begin: int
    end: int
    shapes: tuple[Any, ...] = ()
    places: Sequence[Array] = ()
    body: bytes = b""


def first_arena_bytes(jobs_max: int) -> int:
    """What an arena has to begin with."""
    return jobs_max * SLOT_BYTES


class Pipe:
    """Jobs and answers of one child.  Used by one thread."""

    def __init__(self, child: Child, jobs_max: int, arena_bytes_max: int) -> None:
        self._child = child
        self._sock = child.data
        self._arena_bytes_max = arena_bytes_max
        self._jobs_max = jobs_max
        self._reader = frames.Reader()
        self._unsent = b""  # of a frame of very many tensors, while the worker is busy
        self._free: list[Slot] = []
        self._out: deque[tuple[int, Slot | None]] = deque()  # jobs, in the order they were sent
        self._slot_bytes = SLOT_BYTES
        self._output_bytes = 0  # the most that outputs have taken
        self._lay_slots(0)

    def submit(self, job: int, inputs: Sequence[Array]) -> None:
        """Send a job.

        Raises:
            OSError: the worker is gone.
        """
        assert len(self._out) < self._jobs_max, "more jobs than jobs_max"
        room = frames.room(inputs)
        slot: Slot | None = None
        try:
            slot = self._slot(room)
            body = self._write(slot, inputs)
            frame = frames.pack(
                frames.RUN, job=job, tensors=len(inputs), number=slot.end, body=body
            )
        except (_TooLargeError, TypeError) as error:
            if slot is not None:
                self._free.append(slot)
                slot = None
            frame = frames.pack(frames.ECHO, job=job, body=str(error).encode())
        self._send(frame)
        self._out.append((job, slot))

    def collect(self) -> tuple[list[Answer], bool]:
        """The answers that have come, and whether the worker is still there.

        Raises:
            BreachError: it answered what no worker answers.
        """
        answers: list[Answer] = []
        if self._unsent:
            self._send(b"")
        while True:
            try:
                chunk = self._sock.recv(CHUNK_BYTES)
            except BlockingIOError:
                return answers, True
            except OSError:
                return answers, False
            if not chunk:
                return answers, False
            answers += [self._answer(frame) for frame in self._reader.feed(chunk)]
            if len(chunk) < CHUNK_BYTES:
                return answers, True

    def _send(self, frame: bytes) -> None:
        """Send what the socket takes.  It takes all but where the worker is in a run, whose answer
        will wake the lane; `collect` then sends the rest.
        """
        self._unsent += frame
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            return

    # ---- slots ----------------------------------------------------------------------------------

    def _slot(self, room: int) -> Slot:
        wanted = room + self._output_bytes
        if wanted > self._slot_bytes:
            self._grow(wanted)
        return self._free.pop()

    def _grow(self, wanted: int) -> None:
        """Slots twice as large, or as large as they have to be, at the top of the arena."""
        begin = self._child.arena.size
        slot_bytes = max(2 * self._slot_bytes, 1 << (wanted - 1).bit_length())
        size = begin + self._jobs_max * slot_bytes
        if size > self._arena_bytes_max:
            raise _TooLargeError(wanted, self._arena_bytes_max)
        try:
            self._child.arena.grow(size)
        except OSError as error:
            raise _TooLargeError(wanted, self._arena_bytes_max) from error
        tag = self._child.arena.tag.encode()
        self._send(frames.pack(frames.GREW, number=size, body=tag))
        self._slot_bytes = slot_bytes
        self._lay_slots(begin)

    def _lay_slots(self, begin: int) -> None:
        size = self._slot_bytes
        starts = range(begin, begin + self._jobs_max * size, size)
        self._free = [Slot(start, start + size) for start in starts]

    def _write(self, slot: Slot, inputs: Sequence[Array]) -> bytes:
        """Lay `inputs` in `slot`; most often they have the shapes of the last ones."""
        shapes = tuple((array.shape, array.dtype) for array in inputs)
        if shapes != slot.shapes:
            slot.body = frames.entries(inputs, slot.begin)
            memory = self._child.arena.memory
            slot.places, _ = frames.views(slot.body, len(inputs), memory, slot.begin, slot.end)
            slot.shapes = shapes
        for place, array in zip(slot.places, inputs, strict=True):
            place[...] = array
        return slot.body

    # ---- answers --------------------------------------------------------------------------------

    def _answer(self, frame: frames.Frame) -> Answer:
        if not self._out or self._out[0][0] != frame.job:
            msg = f"an answer to job {frame.job}, which was not the next"
            raise frames.BreachError(msg)
        _, slot = self._out.popleft()
        outputs: Sequence[Array] = ()
        error = ""
        if frame.kind == frames.FAILED:
            error = frame.body.decode(errors="replace") or "the run failed"
        elif frame.kind == frames.ANSWER and slot is not None:
            memory = self._child.arena.memory
            views, _ = frames.views(frame.body, frame.tensors, memory, slot.begin, slot.end)
            outputs = [view.copy() for view in views]
        elif frame.kind == frames.INLINE:
            views, _ = frames.views(frame.body, frame.tensors, frame.body)
            outputs = [view.copy() for view in views]
            self._output_bytes = max(self._output_bytes, frames.room(outputs))
        else:
            msg = f"a frame of kind {frame.kind}"
            raise frames.BreachError(msg)
        if slot is not None and slot.end - slot.begin == self._slot_bytes:
            self._free.append(slot)
        return Answer(frame.job, outputs, frame.number / 1e6, error)


class _TooLargeError(Exception):
    def __init__(self, wanted: int, most: int) -> None:
        super().__init__(
            f"a batch that takes {wanted} bytes with its outputs; shared memory ends at {most}"
        )
