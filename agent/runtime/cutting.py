"""Windows that closed become a chunk that waits for its batch, and the account follows."""

from typing import TYPE_CHECKING

from agent.core.windows import Spans
from agent.runtime.batches import Chunk
from agent.runtime.seats import Seat
from agent.runtime.shares import Share

if TYPE_CHECKING:
    from agent.runtime.scoring import Scoring


def cut(scoring: "Scoring", seat: Seat, spans: Spans, arrived: float, share: Share) -> None:
    """`spans`, which `seat` made as `share` came, are scored in their turn.

    `arrived` is monotonic, of the oldest reading that matters to latency.
    """
    account = scoring.account
    scoring.reject(spans.rejected, share)
    if spans.rejected:
        scoring.last_reject["late"] = "its window had closed; see `late` of the stream"
    covered = spans.readings - (paid := min(seat.debt, spans.readings))
    seat.debt -= paid  # the version before has scored those already
    expired = spans.expired - (paid := min(seat.debt, spans.expired))
    seat.debt -= paid
    account.expired += expired
    account.held -= covered + expired
    if len(spans.keys):
        account.flying += covered
        chunk = Chunk(seat, spans.keys, spans.times, spans.values, covered, arrived, [share])
        for part in scoring.beside.divide(chunk):
            for one in part.shares:
                one.parts += 1
            scoring.slot.lease(part.seat)
            scoring.waiting.add(part)
