"""What goes on beside the active version: a shadow that nobody hears, a canary for some sensors,
and what is kept to be scored again.
"""

import numpy as np
import pytest

from agent.core.blocks import Keys
from agent.core.evidence import Evidence
from agent.runtime.accounts import Account
from agent.runtime.beside import Keep
from agent.runtime.canary import Canary
from agent.runtime.limits import Limits
from agent.runtime.shadow import TRIES_MAX, WAITING_ROWS_MAX
from tests.world.river import TUMBLING_3, River, ref


@pytest.fixture
def river():
    with River() as river:
        yield river


def seated(river, release=1, **members):
    seat = river.seat(release, **members)
    river.swap(seat)
    return seat


def shadowed(river, candidate, judged=None, share=1.0):
    judged = judged or candidate
    judged.evidence.hold_against(1e-3, 1e-4)
    river.scoring.beside.begin_shadow(candidate, judged, share)
    return candidate.evidence


def settle(river, *seats, turns=6, step_s=0.1):
    """Time passes and everybody answers."""
    for _ in range(turns):
        river.turn()
        for seat in seats:
            seat.session.answer(100)
        river.clock.forward(step_s)
    river.turn()


# ---- shadow --------------------------------------------------------------------------------------


def test_a_shadow_is_given_the_very_batches_after_the_active_version(river):
    """[rollout-5.1]"""
    active, candidate = seated(river), river.seat(2)
    seen = shadowed(river, candidate)
    river.push(4)
    river.turn()
    assert candidate.session.seen == []  # not before the active version has answered
    settle(river, active, candidate)
    assert [x.tolist() for x in candidate.session.seen[0]] == [
        x.tolist() for x in active.session.seen[0]
    ]
    assert (seen.comparison.rows, seen.comparison.agreed) == (4, 4)
    assert river.by_release == [(1, 1), (1, 2), (1, 3), (1, 4)]
    river.check()


def test_a_shadow_with_windows_of_its_own_is_held_against_the_last_word(river):
    """[rollout-5.1]"""
    active, candidate = seated(river), river.seat(2, window=TUMBLING_3)
    seen = shadowed(river, candidate)
    for _ in range(7):
        river.push(1)
        settle(river, active, candidate, turns=2)
    assert candidate.windower.pending == 1
    assert seen.comparison.rows == 2
    assert river.scores == [1, 2, 3, 4, 5, 6, 7]
    river.check()


def test_what_only_the_shadow_gets_wrong_is_an_error_of_its_own(river):
    active, candidate = seated(river), river.seat(2)
    candidate.session._run = lambda inputs: [np.full((len(inputs[0]), 1), np.nan, np.float32)]
    seen = shadowed(river, candidate)
    river.push(3)
    settle(river, active, candidate)
    assert (seen.errors, active.evidence.errors) == (3, 0)
    assert seen.why == "the score is not a finite number"


def test_a_shadows_failed_run_is_an_error_and_disturbs_nobody(river):
    active, candidate = seated(river), river.seat(2)
    seen = shadowed(river, candidate)
    river.push(2)
    settle(river, active, turns=2)
    candidate.session.answer(error="no")
    settle(river, active)
    assert (seen.errors, seen.why) == (2, "no")
    assert river.scores == [1, 2]
    river.check()


def test_a_shadow_uses_no_more_than_its_share_of_time(river):
    """[rollout-5.2] Each scripted run takes 1 ms; a share of 1 % allows one in 100 ms."""
    active, candidate = seated(river), river.seat(2)
    shadowed(river, candidate, share=0.01)
    for _ in range(100):
        river.push(1)
        settle(river, active, candidate, turns=2, step_s=0.005)
    assert 5 <= len(candidate.session.seen) <= 20
    assert len(active.session.seen) == 100


def test_what_a_slow_shadow_has_no_time_for_is_skipped_and_counted():
    """[rollout-5.2]"""
    with River(limits=Limits(rows_max=128)) as river:
        active, candidate = seated(river), river.seat(2)
        seen = shadowed(river, candidate)
        rows = WAITING_ROWS_MAX + 100
        river.push(rows)
        for _ in range(rows // 128 + 10):
            river.turn()
            active.session.answer(100)
        river.turn()
        assert seen.skipped == rows - WAITING_ROWS_MAX
        assert len(river.scores) == rows


def test_a_lost_shadow_tries_its_batch_again_and_gives_it_up_in_the_end(river):
    active, candidate = seated(river), river.seat(2)
    seen = shadowed(river, candidate)
    river.push(2)
    settle(river, active)
    for _ in range(TRIES_MAX):
        candidate.session.die()
        settle(river, active)
        candidate.session.revive()
        candidate.revived()
        settle(river, active)
    assert seen.deaths == TRIES_MAX == len(river.lost)
    assert seen.errors == 2
    assert river.scores == [1, 2]


def test_a_hung_shadow_is_killed_and_that_is_a_death_and_no_hang(river):
    active, candidate = seated(river), river.seat(2)
    seen = shadowed(river, candidate)
    river.push(1)
    settle(river, active)
    assert river.scoring.next_due(river.clock.monotonic()) is not None
    river.clock.forward(100.0)
    river.turn()
    river.turn()
    assert candidate.session.kills == 1
    assert (seen.hangs, seen.deaths) == (0, 1)


def test_the_time_the_whole_process_stood_still_is_no_hang_of_a_shadow(river):
    active, candidate = seated(river), river.seat(2)
    shadowed(river, candidate)
    river.push(1)
    settle(river, active)
    river.clock.forward(100.0)
    river.scoring.stood_still(100.0)
    river.turn()
    assert candidate.session.kills == 0


def test_an_answer_that_comes_after_its_shadow_has_ended_frees_the_session(river):
    active, candidate = seated(river), river.seat(2)
    shadowed(river, candidate)
    river.push(1)
    settle(river, active)
    assert candidate.jobs_out == 1
    river.scoring.beside.end_shadow()
    river.swap(candidate)
    candidate.session.answer()
    river.push(2)
    settle(river, active, candidate)
    assert candidate.jobs_out == 0
    assert river.by_release == [(1, 1), (2, 2), (2, 3)]
    river.check()


@pytest.mark.parametrize("takes", ["some sensors", "all"])
def test_a_run_that_a_shadow_never_ended_does_not_hold_up_who_takes_over(river, takes):
    """[rollout-7.3] It was begun in shadow, where a hang is looked for in another place."""
    active, candidate = seated(river), river.seat(2)
    shadowed(river, candidate)
    river.push(1)
    settle(river, active)
    assert candidate.jobs_out == 1
    candidate.session.jobs_max = 1
    if takes == "all":
        river.swap(candidate)
    else:
        river.scoring.beside.begin_canary(candidate, 1.0)
    river.push(1)
    settle(river, active)
    river.clock.forward(river.scoring.limits.run_s_max)
    river.turn()
    assert candidate.session.kills == 1
    assert candidate.evidence.hangs == 1
    river.turn()
    assert candidate.lost
    river.finish()
    assert river.by_release == [(1, 1), (2, 2)]
    assert candidate.evidence.hangs == 1
    river.check()


def test_a_shadow_that_ends_lets_its_seat_go(river):
    seated(river)
    candidate = river.seat(2)
    shadowed(river, candidate)
    assert candidate in river.scoring.seats()
    river.scoring.beside.end_shadow()
    assert candidate not in river.scoring.seats()
    assert river.released == [candidate]


def test_the_known_good_in_the_shadow_is_what_a_live_version_is_held_against(river):
    """[rollout-5.8]"""
    live, good = seated(river, 2), river.seat(1)
    live.session._run = lambda inputs: [inputs[0] + 5]
    seen = live.evidence
    shadowed(river, good, judged=live)
    river.push(4)
    settle(river, live, good)
    assert (seen.comparison.rows, seen.comparison.agreed) == (4, 0)
    assert seen.comparison.run_theirs.whole(river.clock.monotonic()).rows == 1
    assert np.ravel(seen.comparison.ours.columns()).tolist() == [6, 7, 8, 9]
    assert np.ravel(seen.comparison.theirs.columns()).tolist() == [1, 2, 3, 4]
    assert good.evidence.comparison is None


def test_a_shadow_that_another_follows_is_let_go(river):
    """What was loaded for it is given back, and its last run stands in nobody's way."""
    active, second, third = seated(river), river.seat(2), river.seat(3)
    shadowed(river, second)
    river.push(1)
    settle(river, active)
    assert second.jobs_out == 1
    seen = shadowed(river, third)
    assert river.released == [second]
    assert river.scoring.seats() == {active, third}
    river.push(1)
    settle(river, active, third)
    assert seen.comparison.rows == 1
    river.check()


def test_a_stateful_shadow_goes_on_from_the_states_there_are_and_keeps_its_own(river):
    first, second = river.stateful(1), river.stateful(2)
    river.swap(first)
    river.push(1)
    settle(river, first)
    seen = shadowed(river, second)
    river.push(1)
    settle(river, first, second)
    assert second.states is not first.states
    assert (seen.comparison.rows, seen.comparison.agreed) == (1, 1)


def test_a_known_good_that_takes_the_stream_back_goes_on_from_its_own_states(river):
    """Those of the bad version are what the bad version made of them."""
    bad, good = river.stateful(2), river.stateful(1)
    river.swap(bad)
    shadowed(river, good, judged=bad)
    sound, bad.session._run = bad.session._run, lambda inputs: [100 + x for x in sound(inputs)]
    river.push(1)
    settle(river, bad, good)
    river.take_back(bad, good)
    river.push(1)
    river.finish()
    assert river.by_release == [(2, 101), (1, 3)]


def test_a_candidate_that_takes_the_stream_goes_on_from_its_states_however_far_behind(river):
    """What it had no time for in the shadow is not missing from its sums."""
    first, second = river.stateful(1), river.stateful(2)
    river.swap(first)
    shadowed(river, second)
    for _ in range(3):
        river.push(1)
        settle(river, first, turns=2)
    river.swap(second)
    river.push(1)
    river.finish()
    assert river.by_release == [(1, 1), (1, 3), (1, 6), (2, 10)]
    river.check()


def test_windows_that_were_filled_beside_score_what_the_version_before_had_not(river):
    """Only what is in neither is expired."""
    window = {"kind": "tumbling", "size": "2"}
    active, candidate = seated(river, window=TUMBLING_3), river.seat(2, window=window)
    shadowed(river, candidate)
    river.push(5)
    settle(river, active, candidate)
    river.swap(candidate)
    counts = river.account.counts()
    assert (counts.scored, counts.expired, counts.pending) == (3, 1, 1)
    river.push(1)
    river.finish()
    counts = river.account.counts()
    assert (counts.scored, counts.expired, counts.pending) == (5, 1, 0)
    assert river.by_release == [(1, 3), (2, 6)]
    river.check()


def wide(rows):
    """A river whose batches take so many sensors, twice as many named."""
    river = River(limits=Limits(rows_max=rows, tries_max=3))
    for n in range(3, 2 * rows):
        river.scoring.keys.index(f"s{n}")
    return river


def behind(river, live, shadow, rows):
    """One batch is out at the shadow, one waits, and it has no time for a third, of others."""
    for first in (0, 0, rows):
        river.push(rows, keys=list(range(first, first + rows)))
        for _ in range(3):
            river.turn()
            live.session.answer()
    river.turn()
    assert shadow.jobs_out == 1


def test_a_stateful_shadow_that_skips_goes_on_from_what_the_live_version_knows():
    """[rollout-5.2] What it was behind with is skipped, and no state of then comes back."""
    rows = WAITING_ROWS_MAX // 2 + 1
    with wide(rows) as river:
        first, second = river.stateful(1), river.stateful(2)
        river.swap(first)
        seen = shadowed(river, second)
        behind(river, first, second, rows)
        assert seen.skipped == 2 * rows
        settle(river, second)
        assert (seen.comparison.rows, seen.comparison.agreed) == (rows, rows)
        river.push(rows, keys=list(range(rows)))
        settle(river, first, second)
        assert (seen.comparison.rows, seen.comparison.agreed) == (2 * rows, 2 * rows)
        assert seen.skipped == 2 * rows


def test_what_a_lost_shadow_was_behind_with_is_not_tried_again():
    rows = WAITING_ROWS_MAX // 2 + 1
    with wide(rows) as river:
        first, second = river.stateful(1), river.stateful(2)
        river.swap(first)
        seen = shadowed(river, second)
        behind(river, first, second, rows)
        second.session.die()
        river.turn()
        second.session.revive()
        second.revived()
        river.push(rows, keys=list(range(rows)))
        settle(river, first, second)
        assert seen.skipped == 3 * rows
        assert (seen.comparison.rows, seen.comparison.agreed) == (rows, rows)


def test_what_the_version_before_still_answers_is_no_word_of_the_live_one(river):
    before, live = seated(river), river.seat(2)
    river.push(2)
    river.turn()
    river.swap(live)
    candidate = river.seat(3)
    seen = shadowed(river, candidate)
    settle(river, before, candidate)
    assert river.by_release == [(1, 1), (1, 2)]
    assert (seen.comparison.rows, candidate.session.seen) == (0, [])


# ---- canary --------------------------------------------------------------------------------------


def keys_of(*names):
    keys = Keys()
    for name in names:
        keys.index(name)
    return keys


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0.0, 0, 0), (0.1, 60, 140), (1.0, 1000, 1000)]
)
def test_a_canary_is_a_share_of_the_sensors_and_always_the_same(river, share, least, most):
    """[rollout-5.6]"""
    keys = keys_of(*(f"p{i}" for i in range(1000)))
    numbers = np.arange(1000, dtype=np.int32)
    seat = river.seat(1)
    chosen = Canary(seat, share, "m", keys).chosen(numbers)
    assert least <= chosen.sum() <= most
    again = Canary(seat, share, "m", keys_of(*reversed(keys.names))).chosen(numbers[::-1])
    assert chosen.tolist() == again.tolist()
    if 0 < share < 1:
        assert chosen.tolist() != Canary(seat, share, "other", keys).chosen(numbers).tolist()


def test_a_sensor_that_is_new_is_chosen_or_not_as_well(river):
    keys = keys_of("a")
    canary = Canary(river.seat(1), 1.0, "m", keys)
    assert canary.chosen(np.array([0])).tolist() == [True]
    keys.index("b")
    assert canary.chosen(np.array([0, 1])).tolist() == [True, True]


def test_whether_a_sensor_is_chosen_does_not_depend_on_when_it_came(river):
    keys, numbers = Keys(), np.arange(100, dtype=np.int32)
    canary = Canary(river.seat(1), 0.5, "m", keys)
    for i in range(100):
        keys.index(f"p{i}")
        canary.chosen(numbers[: i + 1])
    at_once = Canary(river.seat(1), 0.5, "m", keys).chosen(numbers)
    assert canary.chosen(numbers).tolist() == at_once.tolist()


def canaried(river, candidate, share=0.5):
    """Some of a, b and c are answered by `candidate`."""
    river.scoring.beside.begin_canary(candidate, share)
    canary = river.scoring.beside.canary
    while not 0 < canary.chosen(np.arange(3)).sum() < 3:
        share *= 0.9
        river.scoring.beside.begin_canary(candidate, share)
        canary = river.scoring.beside.canary
    return set(np.flatnonzero(canary.chosen(np.arange(3))).tolist())


@pytest.mark.parametrize("window", [None, TUMBLING_3])
def test_the_canary_answers_for_its_sensors_and_the_active_version_for_the_others(river, window):
    """[rollout-5.6]"""
    members = {} if window is None else {"window": window}
    active, candidate = seated(river, **members), river.seat(2, **members)
    chosen = canaried(river, candidate)
    river.push(18, keys=[0, 1, 2] * 6)
    river.finish()
    for body in river.bodies:
        assert {"abc".index(key) in chosen for key in body["key"]} == {body["release"] == 2}
    counts = river.account.counts()
    assert (counts.readings, counts.scored, counts.pending) == (18, 18, 0)
    assert [body["seq"] for body in river.bodies] == sorted(body["seq"] for body in river.bodies)
    assert active.leases == candidate.leases == 0


def test_a_canary_with_state_goes_on_from_the_states_there_are(river):
    """[rollout-5.6]"""
    first, second = river.stateful(1), river.stateful(2)
    river.swap(first)
    river.push(3, keys=[0, 1, 2])
    river.finish()
    canaried(river, second)
    river.push(3, keys=[0, 1, 2])
    river.finish()
    assert {body["release"] for body in river.bodies[1:]} == {1, 2}
    assert sorted(score for body in river.bodies[1:] for score in body["score"]) == [5, 7, 9]


def test_a_canary_with_other_states_goes_on_from_those_it_had_in_the_shadow(river):
    """[rollout-5.6] It cannot read those of the active version."""
    first, second = river.stateful(1), river.stateful(2, width=2)
    river.swap(first)
    river.push(3, keys=[0, 1, 2])
    river.finish()
    shadowed(river, second)
    river.push(3, keys=[0, 1, 2])
    settle(river, first, second)
    chosen = canaried(river, second)
    river.push(3, keys=[0, 1, 2])
    river.finish()
    said = {k: s for b in river.bodies[2:] for k, s in zip(b["key"], b["score"], strict=True)}
    theirs, ours = [12.0, 15.0, 18.0], [11.0, 13.0, 15.0]
    assert said == {"abc"[n]: (ours if n in chosen else theirs)[n] for n in range(3)}


def test_a_canary_is_judged_by_what_it_answers_and_its_shadow_is_over(river):
    """[rollout-5.6]"""
    active, candidate = seated(river), river.seat(2)
    shadowed(river, candidate)
    river.push(3, keys=[0, 1, 2])
    settle(river, active, candidate)
    candidate.evidence = Evidence()
    chosen = canaried(river, candidate)
    river.push(9, keys=[0, 1, 2] * 3)
    settle(river, active, candidate)
    assert candidate.evidence.windows == 3 * len(chosen)


def test_a_canary_that_ends_leaves_what_it_had_not_answered_to_the_active_version(river):
    """[rollout-5.6]"""
    active, candidate = seated(river), river.seat(2)
    canaried(river, candidate)
    river.push(6, keys=[0, 1, 2] * 2)
    river.turn()
    river.scoring.beside.end_canary()
    river.finish()
    assert {body["release"] for body in river.bodies} == {1}
    assert sorted(river.scores) == [1, 2, 3, 4, 5, 6]
    assert river.account.counts().balanced
    assert candidate in river.released
    assert active.leases == 0


def test_a_canary_that_ends_with_nothing_on_its_way_is_let_go_at_once(river):
    _, candidate = seated(river), river.seat(2)
    river.scoring.beside.begin_canary(candidate, 0.5)
    river.scoring.beside.end_canary()
    assert river.released == [candidate]


def test_a_canary_that_is_promoted_answers_for_all(river):
    active, candidate = seated(river), river.seat(2)
    canaried(river, candidate)
    river.push(3, keys=[0, 1, 2])
    river.swap(candidate)
    river.push(3, keys=[0, 1, 2])
    river.finish()
    assert river.scoring.beside.canary is None
    assert [release for release, score in river.by_release if score > 3] == [2, 2, 2]
    assert active in river.released


# ---- what is kept --------------------------------------------------------------------------------


def test_what_a_version_on_trial_has_scored_is_kept_as_it_was_scored(river):
    """[rollout-6.1]"""
    kept = []
    trial = seated(river, 2)
    river.scoring.beside.keep = Keep(trial, kept.append)
    river.push(6, keys=[0, 1, 2] * 2)
    river.finish()
    assert [(one.seq, one.rows, one.release) for one in kept] == [(0, 4, 2), (4, 2, 2)]
    assert kept[0].keys == ["a", "b", "c", "a"]
    assert np.concatenate([one.values for one in kept]).ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert river.scoring.account.tried == 6


def test_a_version_on_trial_that_climbs_to_another_worker_is_kept_on(river):
    """[rollout-6.1]"""
    kept = []
    trial, climbed = seated(river, 2), river.seat(2)
    river.scoring.beside.keep = Keep(trial, kept.append)
    river.push(2)
    river.finish()
    river.swap(climbed)
    river.push(3)
    river.finish()
    assert [(one.seq, one.rows, one.release) for one in kept] == [(0, 2, 2), (2, 3, 2)]
    assert river.scoring.account.tried == 5


def test_what_a_version_on_trial_scores_in_another_worker_is_kept_too(river):
    """[rollout-6.1] It has climbed to a better provider meanwhile."""
    kept = []
    trial, climbed = seated(river, 2), river.seat(2)
    river.scoring.beside.keep = Keep(trial, kept.append)
    river.swap(climbed)
    river.push(2)
    river.finish()
    assert [(one.seq, one.rows, one.release) for one in kept] == [(0, 2, 2)]


def test_what_others_have_scored_is_not_kept(river):
    kept = []
    active, candidate = seated(river), river.seat(2)
    river.scoring.beside.keep = Keep(candidate, kept.append)
    river.push(4)
    settle(river, active)
    assert kept == []


def test_what_a_candidate_cuts_before_it_answers_is_not_kept(river):
    """[rollout-6.5]"""
    kept = []
    active, candidate = seated(river), river.seat(2, window=TUMBLING_3)
    shadowed(river, candidate)
    river.scoring.beside.keep = Keep(candidate, kept.append)
    river.push(7)
    settle(river, active, candidate)
    assert kept == []


def test_of_unlike_windows_those_of_the_known_good_are_kept(river):
    """[rollout-6.5]"""
    kept = []
    trial, good = seated(river, 2), river.seat(1, window=TUMBLING_3)
    shadowed(river, good, judged=trial)
    river.scoring.beside.keep = Keep(trial, kept.append)
    river.push(7)
    settle(river, trial, good)
    assert [one.rows for one in kept] == [2]
    assert kept[0].values.shape == (2, 3, 1)
    assert good.takes(kept[0].values)
    assert not trial.takes(kept[0].values)
    assert kept[0].release == ref(2).release


def test_windows_of_the_known_good_are_kept_from_the_swap_on_and_until_the_way_back(river):
    """[rollout-6.5] However long it takes until it scores beside, and what was under way then."""
    kept = []
    good, trial = seated(river, 1, window=TUMBLING_3), river.seat(2)
    river.push(2)
    settle(river, good)
    river.scoring.beside.keep = Keep(trial, kept.append)
    river.swap(trial)
    river.push(5)
    settle(river, trial)
    shadowed(river, good, judged=trial)
    river.push(4)
    settle(river, trial, good)
    river.take_back(trial, good)
    river.finish()
    assert all(good.takes(one.values) for one in kept)
    windows = np.concatenate([one.values for one in kept])
    assert windows.ravel().tolist() == list(range(1, 10))
    assert river.scoring.account.tried == len(windows)


def test_what_is_told_late_of_a_version_taken_back_is_not_kept_in_its_own_windows(river):
    """[rollout-6.5] Its answer had to wait for that of the known good to earlier readings."""
    kept = []
    good, trial = seated(river, 1, window=TUMBLING_3), river.seat(2)
    river.push(3)
    river.turn()
    river.scoring.beside.keep = Keep(trial, kept.append)
    river.swap(trial)
    river.push(2)
    river.turn()
    trial.session.answer(100)
    river.turn()
    river.take_back(trial, good)
    river.finish()
    assert [release for release, _ in river.by_release] == [1, 2, 2]
    assert kept == []


def test_what_silence_alone_has_closed_is_counted_in_the_store_as_well(river):
    """[rollout-6.5] A restart in mid-probation knows how much may have to be taken back."""
    kept = []
    window = {"kind": "session", "size": "9", "gap": "4s", "rows": 3}
    trial, good = seated(river, 2), river.seat(1, window=window)
    shadowed(river, good, judged=trial)
    river.scoring.beside.keep = Keep(trial, kept.append)
    river.push(2)
    settle(river, trial, good)
    river.scoring.stored()
    assert river.scoring.stored() is None
    river.clock.forward(100.0)
    river.turn()
    assert [one.rows for one in kept] == [1]
    stored = Account.restored(river.scoring.stored(), redelivered=True)
    assert stored.tried == 1
