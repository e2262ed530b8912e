"""More readings than can be scored: what each policy gives up, and that all of it is counted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.runtime.accounts import Account
from agent.runtime.limits import ROWS_WAITING_MAX, Limits
from agent.runtime.overload import BATCHES_WAITING, DOUBLINGS_MAX
from tests.world.river import TUMBLING_3, River

ROWS_MAX = 4
FULL = BATCHES_WAITING * ROWS_MAX
BURST = 6


def river_of(policy):
    return River(limits=Limits(rows_max=ROWS_MAX, on_overload=policy, tries_max=3))


def flooded(river, bursts, **members):
    """A model that answers nothing; so many bursts come."""
    seat = river.seat(1, **members)
    river.swap(seat)
    for _ in range(bursts):
        river.push(BURST, keys=[0, 1, 2, 0, 1, 2])
        river.turn()
    return seat


def test_a_stream_that_blocks_is_closed_when_much_waits_and_gives_up_nothing():
    with river_of("block") as river:
        flooded(river, 20)
        assert not river.scoring.closed
        assert river.account.rejected == {}
        river.scoring.waiting.rows = ROWS_WAITING_MAX
        assert river.scoring.closed


@pytest.mark.parametrize("policy", ["drop_oldest", "sample"])
def test_a_stream_that_may_give_up_is_never_closed_and_holds_little(policy):
    with river_of(policy) as river:
        flooded(river, 200)
        assert not river.scoring.closed
        assert river.scoring.waiting.rows <= FULL * (DOUBLINGS_MAX + 1) + BURST
        given_up = river.account.rejected["overload"]
        assert given_up + river.account.flying == 200 * BURST
        river.check()
        river.finish()
        assert river.account.scored == 200 * BURST - given_up
        river.check()


def test_the_oldest_are_given_up_and_the_newest_are_scored():
    with river_of("drop_oldest") as river:
        flooded(river, 100)
        river.finish()
        assert river.scores[-FULL:] == [float(n + 1) for n in range(600 - FULL, 600)]
        assert "on_overload" in river.scoring.last_reject["overload"]


def test_sampling_takes_every_sensor_alike():
    with river_of("sample") as river:
        flooded(river, 200)
        river.finish()
        scored = [key for body in river.bodies for key in body["key"]]
        counts = [scored.count(key) for key in "abc"]
        assert max(counts) - min(counts) <= 1


@settings(max_examples=60, deadline=None)
@given(
    policy=st.sampled_from(["drop_oldest", "sample"]),
    window=st.sampled_from([{}, {"window": TUMBLING_3}]),
    story=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 2)), max_size=40),
)
def test_whatever_is_given_up_the_account_is_exact_and_so_is_what_a_crash_takes_back(
    policy, window, story
):
    with river_of(policy) as river:
        seat = river.seat(1, **window)
        river.swap(seat)
        for count, answers in story:
            river.push(count, keys=[n % 3 for n in range(count)])
            seat.session.answer(answers)
            river.turn()
            river.check()
            river.scoring.carried()
            if (raw := river.scoring.stored()) is not None:
                after = Account.restored(raw, redelivered=True)
                assert after.counts().balanced
                assert min(after.readings, after.held, after.expired) >= 0
        river.finish()
        river.check()
        assert river.account.flying == 0
