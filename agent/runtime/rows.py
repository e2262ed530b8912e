"""An answer becomes score rows: evidence, numbers, account and record, in one step."""

from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

from agent.core.errors import RefusedError, UnfitError
from agent.core.scores import ScoreColumns, encode, extract
from agent.ports import Answer, Record
from agent.runtime.batches import Chunk

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
        return None, answer.error if chunk.asked is None else refuse(chunk.asked, answer.error)
    names = [spec.name for spec in seat.session.outputs]
    try:
        columns = extract(seat.manifest.output, names, answer.outputs, rows)
    except UnfitError as error:
        return None, str(error) if chunk.asked is None else refuse(chunk.asked, str(error))
    if chunk.asked is not None:
        chunk.asked.set_result(columns)
        return None, ""
    bad = rows - int(np.isfinite(columns.score.reshape(rows, -1)).all(axis=1).sum())
    if bad:
        seat.evidence.errors += bad
        seat.evidence.why = "the score is not a finite number"
    waited_ms = (now - chunk.arrived) * 1000.0
    seat.evidence.windows += rows
    seat.evidence.latency.add(waited_ms, rows)
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
    payload = encode(
        model=scoring.model,
        release=seat.ref.release,
        stream=scoring.stream,
        epoch=scoring.epoch,
        seq=first,
        keys=[scoring.keys.names[i] for i in chunk.keys.tolist()],
        times=chunk.times,
        columns=columns,
    )
    record = Record(
        scoring.topic,
        payload,
        rows,
        stream=scoring.stream,
        model=scoring.model,
        first_seq=first,
    )
    return record, ""


def refuse(asked: "Future[ScoreColumns]", why: str) -> str:
    """Answer a question with its failure; nothing is left to count."""
    asked.set_exception(RefusedError(why, 422))
    return ""
