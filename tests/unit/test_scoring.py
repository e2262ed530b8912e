"""One model on one stream: every reading accounted for, every score in order, whatever happens."""

from concurrent.futures import Future

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.errors import RefusedError
from agent.core.samples import Reservoir
from agent.runtime.accounts import Account, Rescored
from agent.runtime.batches import Again, Chunk
from agent.runtime.limits import ROWS_WAITING_MAX, Limits
from agent.runtime.receipts import SwapTrace
from tests.world.river import TUMBLING_3, River, ref


@pytest.fixture
def river():
    with River() as river:
        yield river


def after_a_crash(river):
    return Account.restored(river.scoring.stored(), redelivered=True)


def seated(river, release=1, **members):
    seat = river.seat(release, **members)
    river.swap(seat)
    return seat


# ---- in and out ----------------------------------------------------------------------------------


def test_readings_come_out_as_scores_numbered_and_timed(river):
    seat = seated(river)
    river.push(3, keys=[0, 1, 0])
    river.turn()
    seat.session.answer()
    (record,) = river.turn()
    assert orjson.loads(record.payload) == {
        "schema": 1,
        "model": "m",
        "release": 1,
        "stream": "s",
        "epoch": 1,
        "seq": 0,
        "key": ["a", "b", "a"],
        "time": [1.0, 2.0, 3.0],
        "score": [1.0, 2.0, 3.0],
    }
    assert (record.topic, record.rows, record.first_seq) == ("edge/d/scores/m", 3, 0)
    assert (river.account.scored, river.account.last_score) == (3, river.clock.wall())
    assert river.account.counts().pending == 0
    river.check()


def test_without_a_version_readings_are_rejected_and_not_held(river):
    hold = river.push(2, rejected=3)
    assert river.account.rejected == {"malformed": 3, "no_model": 2}
    assert hold.parts == 0
    river.check()


def test_a_reading_out_of_range_is_rejected_and_costs_no_other(river):
    seated(river, features={"names": ["v"], "ranges": [[2, 3]]})
    river.push(4)
    assert river.account.rejected == {"range": 2}
    assert river.scoring.last_reject.keys() == {"range"}
    river.finish()
    assert river.scores == [2, 3]
    river.check()


def test_a_block_of_rejected_readings_only_is_counted(river):
    seated(river)
    hold = river.push(0, rejected=2)
    assert (river.account.readings, hold.parts) == (2, 0)
    river.check()


def test_a_burst_is_let_go_when_its_last_row_is_scored(river):
    seat = seated(river)
    hold = river.push(6)  # two batches
    river.turn()
    assert hold.parts == 1
    seat.session.answer()
    river.turn()
    assert (hold.parts, river.records) == (1, [])  # a crash now must find all of it or nothing
    seat.session.answer()
    river.turn()
    assert (hold.parts, len(river.scores)) == (0, 6)
    assert list(river.holds.settled()) == [hold]


def test_a_burst_that_shares_a_batch_with_half_of_another_waits_with_it(river):
    seat = seated(river)
    first, second = river.push(2), river.push(4)  # batches of 4 and 2
    river.turn()
    seat.session.answer()
    river.turn()
    assert (first.parts, second.parts, river.records) == (1, 1, [])
    assert river.scoring.shares.undone()[0] == 6
    seat.session.answer()
    river.turn()
    assert (first.parts, second.parts, len(river.scores)) == (0, 0, 6)
    assert river.scoring.shares.undone()[0] == 0


def test_readings_held_in_a_window_are_pending_and_let_their_burst_go(river):
    seated(river, window=TUMBLING_3)
    hold = river.push(2)
    assert (river.account.held, river.account.flying, hold.parts) == (2, 0, 0)
    river.push(2)
    assert (river.account.held, river.account.flying) == (1, 3)
    river.finish()
    assert river.scores == [3]
    river.check()


def test_silence_closes_a_window(river):
    seated(river, window={"kind": "session", "size": "100", "gap": "5s", "rows": 2}, late_s=0.0)
    river.push(2)
    river.turn()
    due = river.scoring.next_due(river.clock.monotonic())
    assert due is not None
    river.clock.forward(due - river.clock.monotonic())
    river.dirty = river.scoring.dirty = False
    river.turn()
    assert river.scoring.dirty
    river.finish()
    assert river.scores == [2]
    river.check()


def test_a_reading_between_two_windows_is_expired_and_no_longer_held(river):
    seated(river, window={"kind": "sliding", "size": "2", "step": "3"})
    river.push(7)
    assert (river.account.held, river.account.flying, river.account.expired) == (1, 4, 2)
    river.check()
    river.finish()
    assert river.scores == [2, 5]


def test_a_late_reading_is_rejected_once_and_never_held(river):
    seated(river, window={"kind": "tumbling", "size": "10s", "rows": 2}, late_s=1.0)
    river.push(50)
    river._next = 3
    river.push(1)
    assert river.account.rejected == {"late": 1}
    assert "closed" in river.scoring.last_reject["late"]
    assert river.account.counts().balanced


def test_a_crash_takes_back_what_was_rejected_of_bursts_that_come_again(river):
    window = {"kind": "tumbling", "size": "10s", "rows": 2}
    seated(river, window=window, late_s=1.0, features={"names": ["v"], "ranges": [[2, 99]]})
    river.push(50, rejected=3)  # its windows fly: no later burst is done before it
    river._next = 3
    river.push(1)
    river.swap(None)
    river.push(2)
    assert river.account.rejected == {"malformed": 3, "range": 1, "late": 1, "no_model": 2}
    assert after_a_crash(river) == Account()


# ---- batches -------------------------------------------------------------------------------------


def test_a_batch_waits_to_grow_and_says_until_when():
    with River(limits=Limits(rows_max=4, wait_s=0.5)) as river:
        seat = seated(river)
        river.push(1)
        river.turn()
        assert not seat.session.taken
        assert river.scoring.ripe == river.clock.monotonic() + 0.5
        river.clock.forward(0.2)
        river.push(1)
        river.turn()
        assert river.scoring.ripe == river.clock.monotonic() + 0.3
        river.clock.forward(0.3)
        river.turn()
        assert len(seat.session.taken) == 1
        assert river.scoring.ripe is None


def test_a_full_batch_does_not_wait():
    with River(limits=Limits(rows_max=4, wait_s=60)) as river:
        seat = seated(river)
        river.push(5)
        river.turn()
        assert [len(x[0]) for x in seat.session.seen] == [4]
        assert river.scoring.ripe is not None


def test_what_comes_while_the_worker_is_busy_is_the_next_batch(river):
    seat = seated(river)
    for _ in range(5):
        river.push(1)
        river.turn()
    assert [len(x[0]) for x in seat.session.seen] == [1, 1]
    seat.session.answer()
    river.turn()
    assert [len(x[0]) for x in seat.session.seen] == [1, 1, 3]


def test_past_its_bound_the_stream_is_closed_until_batches_have_gone_out():
    with River(limits=Limits(rows_max=ROWS_WAITING_MAX)) as river:
        seat = seated(river)
        seat.lost = True
        river.push(ROWS_WAITING_MAX - 1)
        assert not river.scoring.closed
        river.push(1)
        assert river.scoring.closed
        river.finish()
        assert not river.scoring.closed


def test_while_its_version_is_loaded_the_stream_is_closed(river):
    river.scoring.restoring = True
    assert river.scoring.closed
    seated(river)
    assert not river.scoring.closed


# ---- stateful models -----------------------------------------------------------------------------


def test_state_is_carried_per_sensor_from_row_to_row(river):
    river.swap(river.stateful(1))
    river.push(6, keys=[0, 0, 1, 0, 1, 1])
    river.finish()
    assert river.scores == [1, 1 + 2, 3, 1 + 2 + 4, 3 + 5, 3 + 5 + 6]
    assert river.account.scored == 6


def test_a_stateful_run_that_was_lost_starts_from_the_same_state(river):
    seat = river.stateful(1)
    river.swap(seat)
    river.push(1)
    river.finish()
    river.push(1)
    river.turn()
    seat.session.die()
    river.turn()
    river.finish()
    assert river.scores == [1, 3]


def test_the_next_version_goes_on_from_the_state_of_the_last(river):
    river.swap(river.stateful(1))
    river.push(2)
    river.finish()
    river.swap(river.stateful(2))
    river.push(1)
    river.finish()
    assert river.by_release == [(1, 1), (1, 3), (2, 6)]


def test_a_version_whose_state_is_of_another_shape_begins_anew(river):
    river.swap(river.stateful(1))
    river.push(2)
    river.finish()
    river.swap(river.stateful(2, width=2))
    river.push(1)
    river.finish()
    assert river.by_release == [(1, 1), (1, 3), (2, 3)]


def test_the_next_version_waits_for_the_state_that_rows_under_way_will_leave(river):
    river.swap(river.stateful(1))
    river.push(3)  # 1, 2, 3: three runs, of which one is out
    river.turn()
    river.swap(river.stateful(2))
    river.push(1)
    river.finish()
    assert river.by_release == [(1, 1.0), (1, 3.0), (1, 6.0), (2, 10.0)]


def test_a_version_that_is_wanted_back_at_once_goes_on_from_the_one_between(river):
    first, second = river.stateful(1), river.stateful(2)
    for seat in (first, second, first):
        river.swap(seat)
        river.push(1)
    river.finish()
    assert river.by_release == [(1, 1.0), (2, 3.0), (1, 6.0)]


def test_a_state_of_another_shape_than_was_said_fails_the_run_and_nothing_else(river):
    seat = river.stateful(1)
    seat.session._run = lambda inputs: [inputs[0], inputs[0].repeat(2, axis=1)]
    river.swap(seat)
    river.push(1)
    river.finish()
    assert river.account.rejected == {"run": 1}
    assert "shape" in seat.evidence.why
    river.check()


# ---- failures ------------------------------------------------------------------------------------


def test_a_failed_run_is_rejected_counted_and_told(river):
    seat = seated(river)
    hold = river.push(3)
    river.turn()
    seat.session.answer(error="division by zero")
    assert river.turn() == []
    assert river.account.rejected == {"run": 3}
    assert (seat.evidence.errors, seat.evidence.why) == (3, "division by zero")
    assert river.scoring.last_reject == {"run": "division by zero"}
    assert hold.parts == 0
    river.check()
    river.push(1)
    river.finish()
    assert river.bodies[0]["seq"] == 0


def test_an_answer_of_the_wrong_shape_is_a_failed_run(river):
    seat = seated(river)
    seat.session._run = lambda inputs: [inputs[0][:1]]
    river.push(3)
    river.finish()
    assert river.account.rejected == {"run": 3}
    assert "shape" in seat.evidence.why


def test_scores_that_are_no_numbers_go_out_as_null_and_are_evidence(river):
    seat = seated(river)
    seat.session._run = lambda inputs: [inputs[0] / (inputs[0] != 2)]
    with pytest.warns(RuntimeWarning):
        river.push(3)
        river.finish()
    assert river.bodies[0]["score"] == [1, None, 3]
    assert (seat.evidence.errors, seat.evidence.windows) == (1, 3)
    assert "finite" in seat.evidence.why
    assert river.account.scored == 3


def test_the_account_is_stored_with_the_scores_that_it_counts(river):
    """[delivery-1.1] Also where nothing else has come since it was last stored."""
    seat = seated(river)
    river.push(2)
    river.turn()
    river.scoring.stored()
    assert river.scoring.stored() is None
    seat.session.answer()
    river.turn()
    after = after_a_crash(river)
    assert (after.scored, after.next_seq) == (2, 2)
    again = Again(1, 0, 1, Future(), 0, Rescored(0))
    row = (np.zeros(1, np.int32), np.zeros(1), np.full((1, 1), 7.0))
    river.scoring.put(Chunk(seat, *row, 0, river.clock.monotonic(), [], again=again), 0.0)
    river.finish()
    after = after_a_crash(river)
    assert (after.scored, after.next_seq) == (2, 3)


def test_a_burst_that_the_whole_stream_has_done_is_forgotten_in_the_store_as_well(river):
    """Also where nothing else has come since: else a second crash would look for it again."""
    seated(river)
    river.push(2)
    river.finish()
    river.scoring.stored()
    assert river.scoring.stored() is None
    assert len(list(river.holds.settled())) == 1
    assert river.scoring.stored() is not None
    assert river.scoring.stored() is None


def test_nothing_is_at_rest_while_rows_wait_or_are_with_the_worker(river):
    seat = seated(river)
    assert river.scoring.idle
    river.push(1)
    assert not river.scoring.idle
    river.turn()
    assert not river.scoring.idle
    seat.session.answer()
    river.turn()
    assert river.scoring.idle


def test_where_scores_are_looked_at_the_finite_ones_are_sampled(river):
    seat = seated(river)
    seat.evidence.scores = Reservoir()
    seat.session._run = lambda inputs: [np.where(inputs[0] == 2, np.nan, inputs[0])]
    river.push(3)
    river.finish()
    assert seat.evidence.scores.columns().ravel().tolist() == [1, 3]


# ---- swaps ---------------------------------------------------------------------------------------


def test_what_one_version_took_in_it_ends_and_order_is_kept(river):
    old = seated(river, 1)
    river.push(4)
    river.turn()
    new = river.seat(2)
    river.swap(new)
    river.push(4)
    river.turn()
    new.session.answer()
    assert river.turn() == []
    old.session.answer()
    river.turn()
    assert river.by_release == [(1, n) for n in (1, 2, 3, 4)] + [(2, n) for n in (5, 6, 7, 8)]
    assert river.released == [old]
    river.check()


def test_a_version_with_nothing_under_way_is_released_at_once(river):
    old = seated(river, 1)
    river.swap(river.seat(2))
    assert river.released == [old]


def test_like_versions_go_on_with_the_same_windows(river):
    seated(river, 1, window=TUMBLING_3)
    river.push(2)
    river.swap(river.seat(2, window=TUMBLING_3))
    river.push(1)
    river.finish()
    assert river.by_release == [(2, 3)]
    assert river.account.expired == 0
    river.check()


def test_another_window_begins_anew_and_what_was_held_is_expired(river):
    seated(river, 1, window=TUMBLING_3)
    river.push(2)
    river.swap(river.seat(2, window={"kind": "tumbling", "size": "2"}))
    assert (river.account.expired, river.account.held) == (2, 0)
    river.push(2)
    river.finish()
    assert river.by_release == [(2, 4)]
    river.check()


def test_going_back_to_windows_that_were_left_counts_no_reading_twice(river):
    first = seated(river, 1, window=TUMBLING_3)
    river.push(2)
    river.swap(river.seat(2, window={"kind": "tumbling", "size": "2"}))
    river.push(1)
    river.swap(first)
    river.check()
    river.push(4)
    river.finish()
    river.check()
    assert river.account.counts().pending == first.windower.pending - first.debt


def test_going_back_to_windows_with_room_between_them_expires_no_reading_twice(river):
    apart = {"kind": "sliding", "size": "2s", "step": "10s", "rows": 2}
    first = river.seat(1, window=apart, late_s=20.0)
    river.swap(first)
    river.push(15)  # all may still be overtaken: held
    river.swap(river.seat(2, window=TUMBLING_3))
    river.swap(first)
    assert (river.account.expired, first.debt) == (15, 15)
    for _ in range(5):
        river.push(5)  # to 40: what came up to 20 goes into windows or between them
    assert river.account.expired == 15 + sum(not 0 <= n % 10 < 2 for n in range(16, 21))
    river.check()
    river.finish()
    river.check()


def test_a_model_taken_away_expires_what_its_windows_held(river):
    seated(river, 1, window=TUMBLING_3)
    river.push(2)
    assert river.scoring.stored() is not None
    assert river.scoring.stored() is None
    river.swap(None)
    assert river.scoring.stored() is not None
    assert (river.account.expired, river.account.held) == (2, 0)
    assert river.scoring.next_due(river.clock.monotonic()) is None
    river.check()


def test_a_trace_follows_a_swap_from_the_last_row_to_the_first(river):
    old = seated(river, 1)
    trace = SwapTrace("swap", ref(1), ref(2))
    trace.watch(river.scoring.recent, river.clock.monotonic())
    river.scoring.trace = trace
    river.push(4)
    river.turn()
    river.swap(river.seat(2), trace)
    old.session.answer()
    river.turn()
    river.push(3)
    river.finish()
    document = trace.document()
    assert (document["last_seq"], document["first_seq"]) == (3, 4)
    assert (document["gap"], document["duplicates"]) == (0, 0)
    assert (trace.during.rows, trace.after.rows) == (4, 3)


def test_a_trace_that_comes_with_the_swap_follows_it_from_there(river):
    seated(river)
    river.push(2)
    river.finish()
    trace = SwapTrace("swap", ref(1), ref(2))
    river.swap(river.seat(2), trace)
    river.push(3)
    river.finish()
    assert (trace.document()["first_seq"], trace.rows_new) == (2, 3)


def test_how_long_a_score_took_is_known_in_milliseconds_of_its_reading(river):
    seat = seated(river)
    river.push(2)
    river.turn()
    river.clock.forward(0.05)
    seat.session.answer()
    river.turn()
    for seen in (river.scoring.recent.whole(river.clock.monotonic()), seat.evidence.latency):
        assert seen.rows == 2
        assert 50.0 <= seen.quantile(0.5) <= 53.5


def test_what_is_scored_again_right_after_a_swap_is_no_gap_of_it(river):
    old, new = seated(river, 1), river.seat(2)
    river.push(1)
    river.finish()
    river.scoring.trace = trace = SwapTrace("rollback", ref(1), ref(2))
    river.push(2)
    river.finish()
    river.swap(new, trace)
    row = (np.zeros(1, np.int32), np.zeros(1), np.full((1, 1), 7.0))
    again = Again(1, 2, 1, Future(), 2, Rescored(0))
    river.scoring.put(Chunk(new, *row, 0, river.clock.monotonic(), [], again=again), 0.0)
    river.finish()
    river.push(1)
    river.finish()
    document = trace.document()
    assert (document["last_seq"], document["first_seq"], document["gap"]) == (2, 4, 0)
    assert old in river.released


@pytest.mark.parametrize("window", [None, TUMBLING_3])
def test_a_trace_has_the_account_as_it_was_at_the_swap(river, window):
    """[versions-3.7]"""
    old = seated(river, 1, **({"window": window} if window else {}))
    trace = SwapTrace("swap", ref(1), ref(2))
    river.push(4)
    river.turn()
    old.session.answer()
    river.turn()
    river.push(2)
    river.swap(river.seat(2), trace)
    river.push(3)
    river.finish()
    counts = trace.document()["counts"]
    assert trace.counts.balanced
    assert counts["in"] == 6
    assert counts["scored"] == (3 if window else 4)
    assert counts["pending"] + counts["expired"] == 6 - counts["scored"]


# ---- rollbacks -----------------------------------------------------------------------------------


def test_a_rollback_hands_on_all_that_was_not_answered(river):
    good = seated(river, 1)
    bad = river.seat(2)
    river.swap(bad)
    river.push(12)  # two batches out, one waiting
    river.turn()
    river.take_back(bad, good)
    assert river.released == [good, bad]
    assert (bad.leases, bad.jobs_out) == (0, 0)
    river.finish()
    assert river.by_release == [(1, n) for n in range(1, 13)]
    assert good.leases == 0
    river.check()


def test_a_sensor_whose_state_the_bad_version_broke_begins_anew_and_no_other_does(river):
    """Else it would never again have a score."""
    good, bad = river.stateful(1), river.stateful(2)
    river.swap(good)
    river.push(2, keys=[0, 1])
    river.finish()
    river.swap(bad)
    bad.session._run = lambda inputs: [np.full((len(inputs[0]), 1), np.nan, np.float32)] * 2
    river.push(1)
    river.finish()
    river.take_back(bad, good)
    river.push(2, keys=[0, 1])
    river.finish()
    assert [body["score"] for body in river.bodies] == [[1, 2], [None], [4, 7]]


def test_what_the_bad_version_has_answered_already_still_counts(river):
    good = seated(river, 1)
    bad = river.seat(2)
    river.swap(bad)
    river.push(8)
    river.turn()
    bad.session.answer()
    river.scoring.jobs.collect(bad)
    river.take_back(bad, good)
    assert bad not in river.released[1:]
    river.finish()
    assert river.by_release == [(2, n) for n in (1, 2, 3, 4)] + [(1, n) for n in (5, 6, 7, 8)]
    assert river.released[-1] is bad
    river.check()


@pytest.mark.parametrize("to", ["nothing", "other windows"])
def test_what_no_other_version_can_take_is_rejected(river, to):
    good = river.seat(1, features={"names": ["v"], "missing": "nan"})
    bad = river.seat(2)
    river.swap(good)
    river.swap(bad)
    hold = river.push(12)
    river.turn()
    river.take_back(bad, None if to == "nothing" else good)
    assert after_a_crash(river) == Account()  # a part is answered for: a crash takes that back too
    river.finish()
    assert river.scores == []
    assert river.account.rejected == {"rolled_back": 12}  # of which 8 were in flight
    assert bad.evidence.errors == 0
    assert hold.parts == 0
    assert bad.leases == 0
    river.check()


def test_a_late_answer_of_the_bad_version_is_not_taken(river):
    good = seated(river, 1)
    bad = river.seat(2)
    river.swap(bad)
    river.push(4)
    river.turn()
    river.take_back(bad, good)
    river.turn()
    bad.session.answer()
    river.scoring.jobs.collect(bad)
    assert river.turn() == []
    river.finish()
    assert river.by_release == [(1, n) for n in (1, 2, 3, 4)]


# ---- questions -----------------------------------------------------------------------------------


def question(river, seat):
    asked, now = Future(), river.clock.monotonic()
    asked.set_running_or_notify_cancel()
    row = (np.zeros(1, np.int32), np.zeros(1), np.full((1, 1), 7.0))
    river.scoring.put(Chunk(seat, *row, 0, now, [], asked), now)
    return asked


def test_a_question_is_answered_and_not_counted(river):
    seat = seated(river)
    asked = question(river, seat)
    river.finish()
    assert asked.result().score.tolist() == [7.0]
    assert (river.account.readings, river.records, seat.leases) == (0, [], 0)


def test_a_question_whose_run_fails_is_refused(river):
    seat = seated(river)
    asked = question(river, seat)
    seat.session.answer(error="no")
    river.turn()
    with pytest.raises(RefusedError, match="no"):
        asked.result()
    assert seat.evidence.errors == 0


def test_whoever_gives_up_on_a_question_does_no_harm(river):
    seat = seated(river)
    asked = question(river, seat)
    asked.cancel()
    river.finish()
    river.push(1)
    river.finish()
    assert river.scores == [1]


# ---- the law -------------------------------------------------------------------------------------

ACTIONS = st.one_of(
    st.tuples(st.just("push"), st.integers(1, 9)),
    st.tuples(st.just("push"), st.integers(1, 9)),
    st.tuples(st.just("turn"), st.just(0)),
    st.tuples(st.sampled_from(["answer", "answer", "fail", "lose", "revive"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["swap like", "swap unlike", "take back"]), st.integers(0, 3)),
    st.tuples(st.just("swap away"), st.just(0)),
    st.tuples(st.sampled_from(["shadow", "canary", "end beside"]), st.integers(0, 3)),
)


@given(st.lists(ACTIONS, max_size=60), st.sampled_from([None, TUMBLING_3]))
@settings(max_examples=200)
def test_every_reading_is_accounted_for_and_scores_are_in_order_on_any_walk(walk, window):
    """[delivery-1.1]"""
    with River() as river:
        Walk(river, window).go(walk)


class Walk:
    """Does to a river whatever a walk says."""

    def __init__(self, river, window):
        self.river = river
        other = {"kind": "tumbling", "size": "2"}
        self.seats = [
            river.seat(release, window=own)
            for release, own in ((1, window), (2, window), (3, other), (4, other))
        ]
        self.taken_away = []
        river.swap(self.seats[0])

    def renew(self, bad):
        """Its session is gone with it: whoever wants that version again loads it again."""
        self.taken_away.append(bad)
        window = bad.manifest.model_dump(exclude_none=True).get("window")
        new = self.river.seat(bad.ref.release, window=window)
        self.seats[self.seats.index(bad)] = new

    def beside(self, what, seat):
        beside, active = self.river.scoring.beside, self.river.scoring.slot.seat
        if active in (None, seat) or beside.canary is not None:
            return
        if what == "shadow":
            seat.evidence.hold_against(1e-3, 1e-4)
            beside.begin_shadow(seat, seat, 1.0)
        elif seat.like(active):
            beside.begin_canary(seat, 0.9)

    def go(self, walk):
        river = self.river
        for action, n in walk:
            self.act(action, n)
            river.check()
        river.scoring.beside.end_shadow()
        river.finish()
        river.check()
        assert river.account.flying == 0
        for seat in self.seats + self.taken_away:  # a shadow's last run ends unheard
            if seat.jobs_out:
                seat.session.answer(100)
                river.scoring.collect(seat, river.clock.monotonic())
        assert all(seat.leases == 0 and seat.jobs_out == 0 for seat in self.seats + self.taken_away)
        river.holds.settled()
        assert len(river.holds) == 0

    def act(self, action, n):
        river = self.river
        needed = sorted(river.scoring.seats(), key=lambda seat: seat.ref.release)
        match action:
            case "push":
                river.push(n, rejected=n % 3)
            case "turn":
                river.turn()
            case "swap away":
                river.swap(None)
            case "swap like" | "swap unlike":
                river.swap(self.seats[n % 2 if action == "swap like" else 2 + n % 2])
            case "shadow" | "canary":
                self.beside(action, self.seats[n])
            case "end beside":
                river.scoring.beside.end_shadow()
                river.scoring.beside.end_canary()
            case "take back":
                bad = river.scoring.slot.seat
                if bad is not None and bad is not self.seats[n]:
                    river.take_back(bad, self.seats[n])
                    self.renew(bad)
            case _ if needed:
                seat = needed[n % len(needed)]
                if action in ("answer", "fail"):
                    seat.session.answer(1 + n % 2, error="no" if action == "fail" else "")
                elif action == "lose":
                    seat.session.die()
                elif seat.lost:
                    seat.session.revive()
                    seat.revived()
