"""More readings than can be scored: what each policy gives up, and that all of it is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.blocks import Block
from agent.runtime.accounts import Account
from agent.runtime.limits import ROWS_WAITING_MAX, Limits
from agent.runtime.overload import BATCHES_WAITING, DOUBLINGS_MAX, Overload
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


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "sample"])
def test_only_a_stream_that_blocks_is_ever_closed(policy):
    overload = Overload(Limits(rows_max=ROWS_MAX, on_overload=policy))
    assert not overload.closes(ROWS_WAITING_MAX - 1)
    assert overload.closes(ROWS_WAITING_MAX) is (policy == "block")


def readings(*keys, rejected=()):
    values = np.arange(len(keys), dtype=np.float64)
    block = Block(np.array(keys, np.int32), values, {"v": values}, 0.0)
    block.rejected.update(rejected)
    return block


def sampling():
    return Overload(Limits(rows_max=ROWS_MAX, on_overload="sample"))


def test_while_no_more_waits_than_can_be_scored_all_is_taken_as_it_is():
    block = readings(0, 1, 0)
    assert sampling().thinned(block, FULL - 1) is block
    for policy in ("block", "drop_oldest"):
        assert Overload(Limits(on_overload=policy)).thinned(block, 10**6) is block


@pytest.mark.parametrize(("waiting", "every"), [(FULL, 2), (2 * FULL, 4), (3 * FULL + 1, 8)])
def test_the_more_waits_the_fewer_of_each_sensor_are_taken(waiting, every):
    """However its readings are spread over blocks: every n-th of a sensor."""
    overload = sampling()
    taken = [len(overload.thinned(readings(0), waiting)) for _ in range(32)]
    assert taken == [1, *[0] * (every - 1)] * (32 // every)
    at_once = sampling().thinned(readings(*[0, 1] * 32), waiting)
    assert at_once.keys.tolist() == [0, 1] * (32 // every)
    assert at_once.columns["v"].tolist() == at_once.times.tolist()
    assert at_once.times.tolist()[::2] == list(range(0, 64, 2 * every))


def test_when_far_too_much_waits_nothing_is_taken():
    block = readings(*[0] * 200)
    assert len(sampling().thinned(block, DOUBLINGS_MAX * FULL)) > 0
    none = sampling().thinned(block, (DOUBLINGS_MAX + 1) * FULL)
    assert (len(none), none.rejected) == (0, {"overload": 200})


def test_what_is_given_up_is_counted_beside_what_was_rejected_before():
    thinned = sampling().thinned(readings(0, 0, 0, rejected={"malformed": 2}), FULL)
    assert thinned.rejected == {"malformed": 2, "overload": 1}
    assert thinned.readings == 5


def test_what_was_given_up_needs_its_version_no_more():
    with river_of("drop_oldest") as river:
        seat = flooded(river, 100)
        river.swap(river.seat(2))
        river.finish()
        assert seat.leases == 0
        assert river.released == [seat]


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
