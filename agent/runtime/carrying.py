"""What a model carries from reading to reading, kept so that a restart goes on where it stood.

Open windows, held values and carried state are the product of all readings before.  Each commit
stores what was done since the last one: the readings that were pushed, the silences that closed
windows, the states that changed.  Replayed on the state it began with, that gives the same again
(docs/adr/0017).  Only what belongs to bursts whose scores are durable too is stored, so that what a
source gives again after a crash meets the windows as they were before it came.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import structlog

from agent.core.blocks import Block, Keys
from agent.core.errors import RefusedError
from agent.core.features import Featurizer
from agent.core.states import States
from agent.core.windows import Windower
from agent.ports import Carried
from agent.runtime.seats import Seat
from agent.runtime.shares import Share

LOG_BYTES_MIN = 256 * 1024  # what is stored step by step before all is stored anew
LOG_RATIO = 2  # times what all takes

logger = structlog.get_logger(__name__)


class _Pushed(msgspec.Struct, tag=1, array_like=True):
    """Readings: keys int32, times and columns float64."""

    now: float
    keys: bytes
    times: bytes
    columns: dict[str, bytes]


class _Waited(msgspec.Struct, tag=2, array_like=True):
    """Silence until `now`."""

    now: float


class _Whole(msgspec.Struct, tag=3, array_like=True):
    """All there was; of windows and features as in `about`."""

    about: str
    features: bytes
    windows: bytes
    remembers: bool  # held values have mattered


_Step = _Pushed | _Waited | _Whole


class _Row(msgspec.Struct, array_like=True):
    """What one commit stored.  `names` of sensors go on where the row before ended."""

    names: list[str]
    steps: list[bytes]
    states: bytes


_steps: msgspec.msgpack.Decoder[_Step] = msgspec.msgpack.Decoder(_Step)
_rows = msgspec.msgpack.Decoder(_Row)


@dataclass(slots=True)
class _Queued:
    """A step whose burst is not settled yet.  `held`: readings in windows after it."""

    share: Share
    held: int
    body: bytes
    whole: bool = False  # it replaces all before; with no body there is nothing to carry


class Carrying:
    """Of one model on one stream; lane's thread only.

    `kept` is how many readings were in windows after the last step that was taken.
    """

    def __init__(self, keys: Keys) -> None:
        self.kept = 0
        self.log_bytes_min = LOG_BYTES_MIN
        self._keys = keys
        self._saved: list[_Row] = []
        self._queue: deque[_Queued] = deque()
        self._windower: Windower | None = None  # whose story is being stored
        self._states: States | None = None
        self._logs = False  # whether the story has readings; else states alone
        self._whole = False  # whether its beginning was taken
        self._number = 0  # of the next row
        self._names = 0  # of sensors that are stored
        self._log_bytes = self._whole_bytes = 0

    # ---- after a restart ----

    def load(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Before anything is read from the stream: what an earlier process stored, in order.

        The stream's sensors get the numbers they had.
        """
        try:
            saved = [_rows.decode(body) for _, body in rows]
        except msgspec.MsgspecError as error:
            logger.warning("open windows lost", why=str(error))
            return
        names = [name for row in saved for name in row.names]
        if [number for number, _ in rows] != list(range(len(rows))):
            logger.warning("open windows lost", why="what was stored of them is not whole")
        elif any(self._keys.index(name) != n for n, name in enumerate(names)):
            logger.warning("open windows lost", why="the sensors have other numbers by now")
        else:
            self._saved, self._number, self._names = saved, len(saved), len(names)
            self._log_bytes = sum(len(body) for _, body in rows)

    def resume(self, seat: Seat, held: int) -> int:
        """`seat` goes on with what was loaded; how many of `held` readings its windows have."""
        saved, self._saved = self._saved, []
        if not saved:
            return 0
        try:
            _replay(seat, saved)
        except (RefusedError, msgspec.MsgspecError, ValueError, KeyError, IndexError) as error:
            logger.warning("open windows lost", model=str(seat.ref), why=str(error))
            _begin_anew(seat)
            return 0
        self._windower, self._states = seat.windower, seat.states
        self._logs, self._whole = _logs(seat), True
        self.kept = min(held, seat.windower.pending)
        logger.info("open windows go on", model=str(seat.ref), readings=self.kept)
        return self.kept

    # ---- what is done ----

    def begin(self, seat: Seat | None, opened: Callable[[], Share], held: int) -> None:
        """`seat` has the stream from here on; a share is opened where that has to be stored."""
        windower = None if seat is None else seat.windower
        states = None if seat is None else seat.states
        if windower is self._windower and states is self._states:
            return
        self._saved = []
        self._windower, self._states = windower, states
        self._logs, self._whole = seat is not None and _logs(seat), False
        if seat is not None and (self._logs or states is not None):
            self._store_whole(seat, opened(), held)
        elif self._number or self._queue:
            self._queue.append(_Queued(opened(), held, b"", whole=True))

    def pushed(self, seat: Seat, block: Block, now: float, share: Share, held: int) -> None:
        """`seat` has taken `block` in, which came with `share`."""
        if not self._logs and seat.featurizer.remembers:
            self._logs = True
            self._store_whole(seat, share, held)
        elif self._logs:
            names = seat.manifest.features.names
            columns = {n: block.columns[n].tobytes() for n in names if n in block.columns}
            step = _Pushed(now, block.keys.tobytes(), block.times.tobytes(), columns)
            self._queued(share, held, step)
        if self._log_bytes > max(self.log_bytes_min, LOG_RATIO * self._whole_bytes):
            self._store_whole(seat, share, held)

    def waited(self, now: float, share: Share, held: int) -> None:
        """Silence has been looked at."""
        if self._logs:
            self._queued(share, held, _Waited(now))

    def _queued(self, share: Share, held: int, step: _Step) -> None:
        body = msgspec.msgpack.encode(step)
        self._log_bytes += len(body)
        self._queue.append(_Queued(share, held, body))

    def _store_whole(self, seat: Seat, share: Share, held: int) -> None:
        whole = _Whole(
            _about(seat),
            seat.featurizer.snapshot(),
            seat.windower.snapshot(),
            seat.featurizer.remembers,
        )
        body = msgspec.msgpack.encode(whole)
        self._log_bytes, self._whole_bytes = 0, len(body)
        self._queue.append(_Queued(share, held, body, whole=True))

    # ---- into the store ----

    def take(self, *, quiet: bool) -> Carried | None:
        """What is settled since last taken.  `quiet`: the states are those of settled bursts."""
        steps: list[bytes] = []
        anew = False
        while self._queue and self._queue[0].share.settled:
            step = self._queue.popleft()
            self.kept = step.held
            if step.whole:
                steps, anew = [], True
                self._whole = self._whole or not self._queue_has_whole()
            if step.body:
                steps.append(step.body)
        if anew and not steps:
            self._number = self._names = 0
            return Carried(0, b"")
        states = b""
        if self._states is not None and self._whole:
            if anew:
                states = self._states.snapshot()
                self._states.changes()
            elif quiet:
                states = self._states.changes()
        if not steps and not states:
            return None
        if anew:
            self._number = self._names = 0
        row = _Row(self._keys.names[self._names :], steps, states)
        taken = Carried(self._number, msgspec.msgpack.encode(row))
        self._number += 1
        self._names = len(self._keys)
        self._log_bytes += len(states) if not anew else 0
        return taken

    def _queue_has_whole(self) -> bool:
        return any(step.whole for step in self._queue)


def _logs(seat: Seat) -> bool:
    return seat.manifest.window is not None or seat.featurizer.remembers


def _about(seat: Seat) -> str:
    return f"{seat.manifest.features!r} {seat.manifest.window!r}"


def _begin_anew(seat: Seat) -> None:
    seat.featurizer = Featurizer(seat.manifest.features)
    seat.windower = seat.windower.blank()
    if seat.states is not None:
        seat.states = seat.states.blank()


def _replay(seat: Seat, rows: Sequence[_Row]) -> None:
    """Do again what was done.  Raises RefusedError where it was of something else."""
    for n, row in enumerate(rows):
        for raw in row.steps:
            _redo(seat, _steps.decode(raw))
        if row.states and seat.states is not None:
            (seat.states.apply if n else seat.states.restore)(row.states)
    seat.windower.rearm()


def _redo(seat: Seat, step: _Step) -> None:
    match step:
        case _Whole():
            if step.about != _about(seat):
                raise RefusedError("they are of other features or another window")
            seat.featurizer.restore(step.features)
            seat.featurizer.remembers = step.remembers
            seat.windower.restore(step.windows, same_clock=True)
        case _Pushed():
            keys = np.frombuffer(step.keys, np.int32)
            columns = {n: np.frombuffer(raw, np.float64) for n, raw in step.columns.items()}
            block = Block(keys, np.frombuffer(step.times, np.float64), columns, step.now)
            seat.windower.push(seat.featurizer.featurize(block), step.now)
        case _Waited():
            seat.windower.due(step.now)
