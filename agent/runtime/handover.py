"""What one version passes to the next when the stream changes hands.  Lane's thread only."""

from typing import TYPE_CHECKING

from agent.runtime.seats import Seat

if TYPE_CHECKING:
    from agent.runtime.scoring import Scoring


def begin(scoring: "Scoring", seat: Seat | None) -> None:
    """Nobody had the stream, or nobody will: only what was stored before a restart goes on."""
    account = scoring.account
    carried = 0 if seat is None else scoring.carrying.resume(seat, account.held)
    account.expired += account.held - carried
    account.held = carried
    if seat is not None:
        seat.debt = seat.windower.pending - carried


def hand_over(scoring: "Scoring", old: Seat, new: Seat) -> None:
    """`new` takes the readings from now on: open windows and states go with the stream.

    Where `new` has windows of its own, which it may have filled beside `old`, what these hold of
    what `old` has not scored is carried; the rest of that is expired.
    """
    account = scoring.account
    if new.like(old):  # the same windows: they go on without a seam
        new.featurizer, new.windower, new.debt = old.featurizer, old.windower, old.debt
        if (
            new.states is not None
            and old.states is not None
            and new.states.like(old.states)
            and not _knows_better(scoring, new)
        ):
            new.states = old.states  # shared, for what is under way still writes them
        return
    carried = min(account.held, new.windower.pending)
    new.debt = new.windower.pending - carried
    account.expired += account.held - carried
    account.held = carried


def _knows_better(scoring: "Scoring", new: Seat) -> bool:
    """Whether `new` is the known good that scored beside: its states are not the bad version's."""
    shadow = scoring.beside.shadow
    return shadow is not None and shadow.seat is new and shadow.judged is not new


def take_from(scoring: "Scoring", bad: Seat, good: Seat | None) -> None:
    """`bad` will answer no more: what it has goes to `good`, or is rejected where that makes other
    windows.
    """
    if good is not None and good.states is not None:
        good.states.forget_broken()
    heir = good if good is not None and good is not bad and good.like(bad) else None
    leases = bad.leases
    scoring.jobs.give(bad, heir)
    waiting = scoring.waiting
    for chunk in [c for c in waiting.chunks if c.seat is bad]:
        if heir is not None:
            scoring.slot.lease(heir)
            chunk.seat = heir
        else:
            waiting.remove(chunk)
            for share in chunk.shares:
                share.reject({"rolled_back": chunk.readings})
            scoring.mark(chunk, parts=-1, answered=0)
            scoring.give_up(chunk, "rolled_back", "the version that took it was taken away")
    kept = sum(seat is bad for seat in scoring.leased())
    for _ in range(leases - kept):
        scoring.slot.release(bad)
