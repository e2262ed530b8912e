"""An answer becomes score rows: evidence, numbers, account and record, in one step."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from agent.core.arrays import total
from agent.core.errors import RefusedError, UnfitError
from agent.core.scores import ScoreColumns, encode, extract
from agent.ports import Answer, Record
from agent.runtime.batches import Again, Chunk

if TYPE_CHECKING:
    from agent.runtime.scoring import Scoring


def score_rows(
    scoring: "Scoring", chunk: Chunk, answer: Answer, now: float, wall: float
) -> tuple[Record | None, str]:
    """The record of one batch, numbered and counted; or None and why there are no scores.

    A question is answered here and gives neither.

    `now` is monotonic and `wall` in seconds since 1970, of the moment the answer is taken.
    """
    seat, rows = chunk.seat, len(chunk)
    if answer.error:
        return None, refused(chunk, answer.error)
    names = [spec.name for spec in seat.session.outputs]
    try:
        columns = extract(seat.manifest.output, names, answer.outputs, rows)
    except UnfitError as error:
        return None, refused(chunk, str(error))
    if chunk.again is not None:
        return superseding(scoring, chunk, chunk.again, columns), ""
    if chunk.asked is not None:
        chunk.asked.set_result(columns)
        return None, ""
    score = columns.score
    if not math.isfinite(total(score)):  # one look: most often all of them are
        finite = np.isfinite(score.reshape(rows, -1)).all(axis=1)
        score = score[finite]
        if bad := rows - len(score):
            seat.evidence.errors += bad
            seat.evidence.why = "the score is not a finite number"
    if (sample := seat.evidence.scores) is not None:
        sample.add(score)
    waited_ms = (now - chunk.arrived) * 1000.0
    seat.evidence.scored(rows, waited_ms, now)
    scoring.recent.add(waited_ms, rows, now)
    account = scoring.account
    first = account.next_seq
    account.next_seq += rows
    account.flying -= chunk.readings
    account.scored += chunk.readings
    account.last_score = wall
    scoring.dirty = True
    if scoring.trace is not None:
        scoring.trace.scored(seat.ref, first, rows, waited_ms, now)
    scoring.beside.answered(chunk, columns, answer.run_ms, first)
    return _record(scoring, chunk, columns, first), ""


def superseding(scoring: "Scoring", chunk: Chunk, again: Again, columns: ScoreColumns) -> Record:
    """The record of rows that take the place of others.  They are numbered as any rows are; the
    readings were counted when they were scored first.  How far that has come is stored with them:
    nothing is superseded twice, whoever dies.
    """
    rows, first = len(chunk), scoring.account.next_seq
    scoring.account.next_seq += rows
    again.far.passed(again.batch, again.rows)
    again.far.rows += rows
    scoring.dirty = True
    if scoring.trace is not None:
        scoring.trace.superseded(rows)
    again.done.set_result(rows)
    told = {"release": again.release, "epoch": scoring.epoch, "seq": again.seq, "rows": again.rows}
    return _record(scoring, chunk, columns, first, told)


def _record(
    scoring: "Scoring",
    chunk: Chunk,
    columns: ScoreColumns,
    first: int,
    supersedes: Mapping[str, int] | None = None,
) -> Record:
    payload = encode(
        model=scoring.model,
        release=chunk.seat.ref.release,
        stream=scoring.stream,
        epoch=scoring.epoch,
        seq=first,
        keys=[scoring.keys.names[i] for i in chunk.keys.tolist()],
        times=chunk.times,
        columns=columns,
        supersedes=supersedes,
    )
    return Record(
        scoring.topic,
        payload,
        len(chunk),
        stream=scoring.stream,
        model=scoring.model,
        first_seq=first,
    )


def refused(chunk: Chunk, why: str) -> str:
    """There are no scores: who waits for them is told; `why`, where readings are left to count."""
    waits = chunk.asked or (chunk.again.done if chunk.again is not None else None)
    if waits is None:
        return why
    waits.set_exception(RefusedError(why, 422))
    return ""
