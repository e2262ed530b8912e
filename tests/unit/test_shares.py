"""What a model owes of its bursts: what is taken back, and what it has had, after a crash."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ports import Burst
from agent.runtime.accounts import Account
from agent.runtime.holds import Holds
from agent.runtime.shares import Share, Shares


def burst(*names):
    return Burst("s", list(names), 0.0, ids=b"".join(b"%04d" % n for n in names))


def opened(shares, holds, *names, had=b""):
    hold = holds.open(None, burst(*names))
    share = shares.open(hold, had)
    hold.parts -= 1
    return hold, share


def test_a_model_that_was_ahead_skips_what_it_had_and_no_more():
    shares = Shares(burst(1, 2, 3).ids)
    assert shares.had(burst(1, 2)) == 2
    assert shares.had(burst(3, 4)) == 1
    assert shares.had(burst(4)) == 0


def test_the_first_new_message_ends_what_comes_again():
    shares = Shares(burst(1, 2).ids)
    assert shares.had(burst(7)) == 0
    assert shares.had(burst(1)) == 0


def test_a_source_that_cannot_tell_skips_nothing():
    shares = Shares(burst(1).ids)
    assert shares.had(Burst("s", [b"x"], 0.0)) == 0
    assert shares.done() == burst(1).ids


def test_a_burst_is_remembered_until_the_whole_stream_has_done_it():
    shares, holds = Shares(), Holds()
    hold, share = opened(shares, holds, 1, 2)
    hold.parts += 1  # another model's
    share.parts = 0
    shares.settle()
    assert (shares.done(), shares.forget()) == (burst(1, 2).ids, False)
    assert Shares.restored(Account().encode(shares)).ahead == burst(1, 2).ids
    hold.parts -= 1
    assert list(holds.settled()) == [hold]
    assert (shares.forget(), shares.done()) == (True, b"")


def test_what_was_had_is_kept_for_a_second_crash_before_the_first_is_made_good():
    first = Shares(burst(1, 2, 3).ids)
    had = burst(1, 2, 3, 4)
    assert first.had(had) == 3
    opened(first, Holds(), 1, 2, 3, 4, had=had.ids[:12])
    assert first.done() == burst(1, 2, 3).ids


@pytest.mark.parametrize("redelivered", [True, False])
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.booleans()), max_size=8))
def test_after_a_crash_only_bursts_under_way_are_taken_back(redelivered, bursts):
    shares, holds, account = Shares(), Holds(), Account()
    whole = True
    kept = [0, 0]
    for readings, wanted, done in bursts:
        rejected = min(wanted, readings)
        _, share = opened(shares, holds, readings)
        share.readings = readings
        share.reject({"range": rejected})
        account.readings += readings
        account.reject({"range": rejected})
        whole = whole and done
        share.parts = 0 if done else 1
        if whole:
            account.scored += readings - rejected
        else:
            account.flying += readings - rejected
        if whole or not redelivered:
            kept[0] += readings
            kept[1] += rejected
        shares.settle()
    raw = account.encode(shares)
    assert set(orjson.loads(raw)["undone"]) == {"readings", "rejected"}
    after = Account.restored(raw, redelivered=redelivered)
    assert after.counts().balanced
    assert [after.readings, sum(after.rejected.values())] == kept


def test_a_burst_is_half_done_while_some_of_it_is_answered_and_some_is_not():
    halves = [Share(None, parts=2, answered=answered).is_half for answered in (0, 1, 2)]
    assert halves == [False, True, False]
