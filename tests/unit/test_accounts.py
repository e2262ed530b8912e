"""The account: what is counted where, and what a restart makes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.health import Counts
from agent.ports import Burst
from agent.runtime.accounts import Account, Rescored
from agent.runtime.holds import Hold
from agent.runtime.shares import Shares

counts = st.integers(0, 10**12)
accounts = st.builds(
    Account,
    scored=counts,
    rejected=st.dictionaries(st.sampled_from(["range", "late", "run"]), st.integers(1, 99)),
    expired=counts,
    held=counts,
    flying=counts,
    next_seq=counts,
    last_score=st.floats(0, 2e9),
    rescored=st.none() | st.builds(Rescored, counts, counts, counts, counts, counts),
)


def balanced(account: Account) -> Account:
    rejected = sum(account.rejected.values())
    pending = account.held + account.flying
    account.readings = account.scored + rejected + account.expired + pending
    return account


def test_rejected_readings_are_counted_by_reason_and_nothing_is_no_reason():
    account = Account()
    account.reject({"range": 2, "late": 0})
    account.reject({"range": 1, "run": 3})
    assert account.rejected == {"range": 3, "run": 3}


def test_what_is_pending_is_what_is_held_and_what_flies():
    account = Account(readings=10, scored=1, rejected={"range": 2}, expired=3, held=1, flying=3)
    assert account.counts() == Counts(10, 1, {"range": 2}, 3, 4)
    assert account.counts().balanced


def test_the_counts_shown_do_not_change_with_the_account():
    account = Account(rejected={"range": 1})
    shown = account.counts()
    account.reject({"range": 1})
    assert shown.rejected == {"range": 1}


@pytest.mark.parametrize(
    ("redelivered", "readings", "expired"),
    [(True, 100 - 7, 2 + 5), (False, 100, 2 + 5 + 7)],
)
def test_after_a_restart_open_windows_are_expired_and_flying_readings_come_again_or_are_too(
    redelivered, readings, expired
):
    account = balanced(Account(scored=86, expired=2, held=5, flying=7, next_seq=86))
    shares = Shares()
    shares.open(Hold(None, Burst("s", [b"x"] * 7, 0.0))).readings = 7
    after = Account.restored(account.encode(shares), redelivered=redelivered)
    assert (after.readings, after.expired) == (readings, expired)
    assert (after.held, after.flying, after.scored, after.next_seq) == (0, 0, 86, 86)


def test_readings_in_windows_that_were_stored_are_held_on_and_no_more_than_there_are():
    account = balanced(Account(scored=86, held=5, flying=7))
    after = Account.restored(account.encode(Shares(), kept=3), redelivered=False)
    assert (after.held, after.flying, after.expired) == (3, 0, 9)
    after = Account.restored(account.encode(Shares(), kept=50), redelivered=False)
    assert (after.held, after.flying, after.expired) == (12, 0, 0)


def test_what_comes_again_is_not_still_counted_as_rejected():
    account = balanced(Account(scored=3, rejected={"range": 5, "late": 2}, flying=1))
    shares = Shares()
    share = shares.open(Hold(None, Burst("s", [b"x"] * 6, 0.0)))
    share.readings = 6
    share.reject({"range": 3, "late": 2})
    raw = account.encode(shares)
    assert Account.restored(raw, redelivered=True) == Account(5, 3, {"range": 2})
    after = Account.restored(raw, redelivered=False)
    assert (after.readings, after.rejected, after.expired) == (11, {"range": 5, "late": 2}, 1)


@given(accounts, st.booleans())
def test_an_account_that_balances_still_does_after_a_restart_and_another(account, redelivered):
    once = Account.restored(balanced(account).encode(Shares()), redelivered=redelivered)
    assert once.counts().balanced
    assert once.counts().pending == 0
    assert (once.next_seq, once.last_score) == (account.next_seq, account.last_score)
    assert Account.restored(once.encode(Shares()), redelivered=redelivered) == once


def test_how_far_rows_were_scored_again_is_told_by_batches_that_may_share_a_number():
    far = Rescored(since=5)
    for seq, rows in ((5, 2), (5, 3), (9, 1)):
        far.passed(seq, rows)
        assert far.seq == seq
    assert far.at == 1
    far.passed(9, 4)
    assert (far.since, far.seq, far.at) == (5, 9, 5)
