"""A second version scores what the first one scores, after it, and nobody hears it but the judge.

Where both make the same windows of the same readings, it is given the very batches; else the
readings, through windows of its own, and each of its rows is held against the last word of the
other version on that sensor.  It never holds the stream up: it may use a share of one core, what
there is no time for is skipped and counted, and what waits is bounded.  Lane's thread only.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import Array
from agent.core.blocks import Block
from agent.core.comparison import Comparison
from agent.core.errors import UnfitError
from agent.core.evidence import Evidence
from agent.core.last_words import LastWords
from agent.core.scores import ScoreColumns, extract
from agent.core.states import waves
from agent.core.windows import Spans
from agent.ports import Answer, WorkerLostError
from agent.runtime.batches import Chunk
from agent.runtime.seats import Seat

WAITING_ROWS_MAX = 8192
WAITING_BYTES_MAX = 8 * 2**20
CREDIT_S_MAX = 1.0  # of run time saved up while there was little to do
HANG_RATIO = 3.0  # of the time that a run of a live version may take
TRIES_MAX = 4  # of one batch, by workers that do not survive it


@dataclass(slots=True, eq=False)
class _Batch:
    """Windows to be scored by the shadow; `theirs` is what the other version said of them."""

    keys: NDArray[np.int32]
    values: Array
    theirs: ScoreColumns | None
    theirs_ms: float
    number: int = 0
    sent: float = 0.0
    tries: int = 0
    behind: bool = False  # its rows' states are known to be others by now


class Shadow:
    """`seat` scores beside `live`; which of the two is judged is told by whose `evidence` it is.

    judged  the version on trial: the shadow itself, or (in probation) the live one
    share   of one core that the shadow may use, over time
    """

    def __init__(
        self,
        seat: Seat,
        live: Seat,
        *,
        judged: Seat,
        numbers: Iterator[int],
        share: float,
        rows_max: int,
        run_s_max: float,
        lost: Callable[[Seat, str], None],
    ) -> None:
        self.seat = seat
        self.same = seat.like(live)
        self.live = live
        self.judged = judged
        self._numbers = numbers  # negative: they share the session with the lane's own jobs
        self._share = share
        self._rows_max = rows_max
        self._run_s_max = run_s_max
        self._lost = lost  # told that its worker is gone
        self._waiting: deque[_Batch] = deque()
        self._rows = 0
        self._bytes = 0
        self._out: _Batch | None = None
        self._over = self._in_the_way = False  # see `leave`
        self._credit_s = 0.0
        self._looked = 0.0
        self._words = LastWords()
        self._follows = False
        if seat.states is not None and live.states is not None and seat.states.like(live.states):
            seat.states, self._follows = live.states.copy(), self.same

    @property
    def evidence(self) -> Evidence:
        """Of the version on trial."""
        return self.judged.evidence

    # ---- what the other version does ----

    def feed(self, block: Block, now: float) -> Spans | None:
        """A block came in: where its windows are its own, they are cut here."""
        if self.same:
            return None
        spans = self.seat.windower.push(self.seat.featurizer.featurize(block), now)
        self._cut(spans)
        return spans

    def due(self, now: float) -> Spans | None:
        """Close the windows of its own that silence has closed."""
        if self.same or (spans := self.seat.windower.due(now)) is None:
            return None
        self._cut(spans)
        return spans

    def next_due(self) -> float | None:
        """When silence will close one."""
        return None if self.same else self.seat.windower.next_due()

    def answered(self, chunk: Chunk, columns: ScoreColumns, run_ms: float) -> None:
        """The live version has scored `chunk`."""
        if chunk.seat is not self.live:
            return
        if not self.same:
            self._words.heard(chunk.keys, columns)
        elif not self._take(_Batch(chunk.keys, chunk.values, columns, run_ms)) and self._follows:
            self._catch_up(chunk.keys)

    def _catch_up(self, keys: NDArray[np.int32]) -> None:
        """Rows of `keys` were skipped: it goes on from what the other version knows by now.

        Of what it has not scored yet that is too much: skipped as well.
        """
        assert self.seat.states is not None
        assert self.live.states is not None
        behind = [keys, *(batch.keys for batch in self._waiting)]
        self.evidence.skipped += self._rows
        self._waiting.clear()
        self._rows = self._bytes = 0
        if self._out is not None:
            behind.append(self._out.keys)
            self._out.behind = True
        self.seat.states.follow(self.live.states, np.concatenate(behind))

    def _cut(self, spans: Spans) -> None:
        for start in range(0, len(spans), self._rows_max):
            part = slice(start, start + self._rows_max)
            keys, values = spans.keys[part], spans.values[part]
            rows = waves(keys) if self.seat.states is not None else [np.arange(len(keys))]
            for wave in rows:
                self._take(_Batch(keys[wave], values[wave], None, 0.0))

    def _take(self, batch: _Batch) -> bool:
        rows, size = len(batch.keys), batch.values.nbytes
        if self._rows + rows > WAITING_ROWS_MAX or self._bytes + size > WAITING_BYTES_MAX:
            self.evidence.skipped += rows
            return False
        self._waiting.append(batch)
        self._rows += rows
        self._bytes += size
        return True

    # ---- its own runs ----

    def pump(self, now: float) -> None:
        """Send the next batch, if its share of time allows."""
        passed = now - self._looked if self._looked else 0.0
        self._looked = now
        self._credit_s = min(CREDIT_S_MAX, self._credit_s + passed * self._share)
        seat = self.seat
        if self._out is not None or seat.lost or seat.jobs_out or self._credit_s < 0:
            return
        if not self._waiting:
            return
        batch = self._waiting.popleft()
        self._rows -= len(batch.keys)
        self._bytes -= batch.values.nbytes
        states = seat.states.gather(batch.keys) if seat.states is not None else None
        batch.number, batch.sent = next(self._numbers), now
        batch.tries += 1
        self._out = batch
        try:
            seat.session.submit(batch.number, seat.assembler.assemble(batch.values, states))
        except WorkerLostError as error:
            self._lost(seat, str(error))
            return
        seat.jobs_out += 1

    def collect(self, answer: Answer, now: float) -> None:
        """One of its runs has ended."""
        batch = self._out
        if batch is None or batch.number != answer.job:
            return  # of a shadow that is no more
        self._out = None
        if self._over:
            return
        self._credit_s -= answer.run_ms / 1000.0
        if (columns := self._columns(batch, answer)) is not None:
            self._compare(batch, columns, answer.run_ms, now)

    def _columns(self, batch: _Batch, answer: Answer) -> ScoreColumns | None:
        seat, rows = self.seat, len(batch.keys)
        try:
            if answer.error:
                raise UnfitError(answer.error)
            if seat.states is not None and not batch.behind:
                seat.states.scatter(batch.keys, seat.named(answer.outputs))
            names = [spec.name for spec in seat.session.outputs]
            return extract(seat.manifest.output, names, answer.outputs, rows)
        except UnfitError as error:
            if self.judged is seat:  # the known good of a probation is not on trial
                self.evidence.errors += rows
                self.evidence.why = str(error)
            return None

    def _compare(self, batch: _Batch, columns: ScoreColumns, run_ms: float, now: float) -> None:
        theirs = batch.theirs
        if theirs is None:
            known = self._words.known(batch.keys)
            if not known.any():
                return
            theirs = self._words.of(batch.keys[known])
            columns = columns.rows(known)
        mine_judged = self.judged is self.seat
        ours, others = (columns, theirs) if mine_judged else (theirs, columns)
        broken = self.evidence.compared(ours, others)
        both: Comparison | None = self.evidence.comparison
        if both is not None and batch.theirs is not None:
            took = (run_ms, batch.theirs_ms)
            both.ran(*(took if mine_judged else took[::-1]), now)
        if mine_judged:
            self.evidence.scored(len(theirs.score), run_ms, now)
            if broken:
                self.evidence.errors += broken
                self.evidence.why = "the score is not a finite number"

    # ---- trouble ----

    def next_wake(self, now: float) -> float | None:
        """When there will be something to do: a hang to end, or time to spend."""
        if self._out is not None and self._over and not self._in_the_way:
            return now
        if self._out is not None:
            return self._out.sent + self._hang_s
        if self._waiting and self._credit_s < 0 and not self.seat.lost:
            return now - self._credit_s / self._share
        return None

    def hung(self, now: float) -> None:
        """Kill its worker if a run takes too long even for one that runs when nobody else does.

        That counts as a death: at the lowest priority a busy machine may look like a hang.
        """
        batch = self._out
        if batch is not None and self._over and not self._in_the_way:
            batch.sent, self._in_the_way = now, True
        if batch is not None and now >= batch.sent + self._hang_s:
            if self._over:
                self.seat.evidence.hangs += 1
                self.seat.evidence.why = f"it was ended after {now - batch.sent:.1f} s"
            batch.sent = now
            self.seat.session.kill()

    @property
    def _hang_s(self) -> float:
        ratio = 1.0 if self._over else HANG_RATIO
        return ratio * self.seat.run_s_max(self._run_s_max)

    @property
    def busy(self) -> bool:
        """Whether it has a run out."""
        return self._out is not None

    def leave(self) -> bool:
        """Nobody hears it any more; whether it has a run out.  Where its seat answers now, that run
        stands in the way of live batches: from here on it may take no longer than theirs.
        """
        self._over = True
        return self.busy

    def stood_still(self, gap_s: float) -> None:
        """Nobody looked for `gap_s`, the machine having stopped us all."""
        if self._out is not None:
            self._out.sent += gap_s

    def worker_lost(self) -> None:
        """What its worker had is tried again, unless it keeps killing workers."""
        batch, self._out = self._out, None
        if batch is None or self._over:
            return
        if batch.behind:
            self.evidence.skipped += len(batch.keys)
            return
        if batch.tries < TRIES_MAX:
            self._waiting.appendleft(batch)
            self._rows += len(batch.keys)
            self._bytes += batch.values.nbytes
        elif self.judged is self.seat:
            self.evidence.errors += len(batch.keys)
            self.evidence.why = f"{batch.tries} workers did not survive one batch"
