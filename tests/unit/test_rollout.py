"""The rollout machine, by law rather than by example."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.names import Digest, ModelRef
from agent.core.rollout import (
    ABANDONABLE,
    LIVE,
    QUARANTINED_MAX,
    RESTARTS_MAX,
    TRANSITIONS,
    Begin,
    Blame,
    Condemned,
    Desired,
    Failed,
    Floor,
    Forgiven,
    Passed,
    Phase,
    Rollout,
    kept,
    loaded,
    recover,
    step,
    suspend,
)

V0, V1, V2, V3 = (ModelRef("bearing", v, Digest(f"sha256:{v:064x}")) for v in range(4))
HOME = Rollout(active=V1, known_good=V1, previous=V0)
OFF_PATH = (Phase.STEADY, Phase.ROLLING_BACK, Phase.RETIRING)
HAPPY_PATH = [p for p in Phase if p not in OFF_PATH]


def at(phase, **changes):
    """A rollout of V2 over V1, standing in `phase`."""
    active = V2 if phase is Phase.PROBATION else V1
    return replace(HOME, phase=phase, candidate=V2, active=active, **changes)


def drive(now, begin, *, fail_in=None, blame=Blame.VERDICT, restart_in=None):
    """Answer every Begin as the real driver would; return the final state and the phases seen."""
    seen = []
    while begin is not None:
        seen.append(begin.phase)
        if begin.phase is restart_in:
            restart_in = None
            now, begin = recover(now)
            continue
        outcome = (
            Failed(begin.phase, begin.ref, "test", blame)
            if begin.phase is fail_in
            else Passed(begin.phase, begin.ref)
        )
        now, begin = step(now, outcome)
    return now, seen


def test_every_phase_but_steady_has_a_row():
    assert set(TRANSITIONS) == set(Phase) - {Phase.STEADY}


def test_the_candidate_is_live_from_preflight_to_probation():
    assert set(HAPPY_PATH) - {Phase.FETCHING, Phase.VERIFYING} == LIVE


def test_a_candidate_may_be_abandoned_until_it_is_promoted():
    """[rollout-2.1] At once while nobody has heard it."""
    heard = {Phase.CANARY, Phase.PROMOTING, Phase.PROBATION}
    assert set(HAPPY_PATH) - heard == ABANDONABLE


def test_a_good_version_walks_the_happy_path():
    """[rollout-1.1]"""
    end, seen = drive(*step(HOME, Desired(V2)))
    assert seen == HAPPY_PATH
    assert end == Rollout(active=V2, known_good=V2, previous=V1)


HEARD = {Phase.CANARY, Phase.PROMOTING, Phase.PROBATION}  # the candidate has answered somebody


@pytest.mark.parametrize("blame", [Blame.VERDICT, Blame.MISFIT, Blame.WEATHER])
@pytest.mark.parametrize("phase", HAPPY_PATH)
def test_a_failure_anywhere_leaves_the_known_good_version_active(phase, blame):
    """[rollout-1.2]"""
    end, seen = drive(*step(HOME, Desired(V2)), fail_in=phase, blame=blame)
    assert (Phase.ROLLING_BACK in seen) == (phase in HEARD)
    assert (end.phase, end.active, end.known_good) == (Phase.STEADY, V1, V1)
    assert (V2.digest in end.quarantined) == (blame is Blame.VERDICT)
    assert str(phase) in end.reason
    assert end.blame is blame


@pytest.mark.parametrize("phase", HAPPY_PATH)
def test_a_power_cut_anywhere_changes_nothing_about_the_outcome(phase):
    """[rollout-1.4]"""
    undisturbed, _ = drive(*step(HOME, Desired(V2)))
    assert drive(*step(HOME, Desired(V2)), restart_in=phase)[0] == undisturbed


@pytest.mark.parametrize("phase", sorted(LIVE))
def test_a_candidate_that_keeps_killing_the_agent_is_condemned(phase):
    """[rollout-1.5]"""
    now, begin = recover(at(phase, restarts=RESTARTS_MAX))
    end, _ = drive(now, begin)
    assert end.active == V1
    assert V2.digest in end.quarantined


@pytest.mark.parametrize("phase", sorted(LIVE))
def test_one_death_less_than_the_most_condemns_nobody(phase):
    now, begin = recover(at(phase, restarts=RESTARTS_MAX - 1))
    assert (now.phase, begin) == (phase, Begin(phase, V2))


@pytest.mark.parametrize("phase", sorted(LIVE))
def test_stopping_in_order_is_no_evidence_against_a_candidate(phase):
    """[rollout-1.5]"""
    now = at(phase, restarts=RESTARTS_MAX)
    for _ in range(10):
        now, begin = recover(suspend(now))
        assert begin == Begin(phase, V2)
    assert now.restarts == RESTARTS_MAX
    assert recover(now)[0].phase in (Phase.STEADY, Phase.ROLLING_BACK)


def test_a_slow_fetch_may_outlive_any_number_of_restarts():
    """[rollout-1.5]"""
    now = at(Phase.FETCHING)
    for _ in range(20):
        now, begin = recover(now)
        assert begin == Begin(Phase.FETCHING, V2)
    now, begin = recover(replace(now, phase=Phase.PREFLIGHT))
    assert begin == Begin(Phase.PREFLIGHT, V2), "it was not loaded then"


def test_a_version_that_is_being_rolled_back_is_not_condemned_anew():
    now = at(Phase.ROLLING_BACK, restarts=RESTARTS_MAX + 1, reason="it was bad")
    assert recover(now)[0].reason == "it was bad"


@pytest.mark.parametrize("phase", sorted(ABANDONABLE))
def test_a_newer_wish_abandons_the_candidate(phase):
    """[rollout-2.1]"""
    now, begin = step(at(phase), Desired(V3))
    assert begin == Begin(Phase.FETCHING, V3)
    assert now.candidate == V3
    assert V2 not in kept(now) | loaded(now)


@pytest.mark.parametrize("phase", sorted(ABANDONABLE))
def test_wishing_for_the_active_version_cancels_the_rollout(phase):
    """[rollout-2.3]"""
    assert step(at(phase), Desired(V1)) == (HOME, None)


@pytest.mark.parametrize("wished", [V3, V1, None])
def test_what_an_abandoned_canary_has_said_is_taken_back_first(wished):
    """[rollout-2.1] [rollout-2.3] [rollout-2.4]"""
    now, begin = step(at(Phase.CANARY), Desired(wished))
    assert begin == Begin(Phase.ROLLING_BACK, V2)
    assert now.waiting == Desired(wished)
    assert recover(now)[1] == begin
    now, begin = step(now, Passed(Phase.ROLLING_BACK, V2))
    assert now.active == V1
    assert V2.digest not in now.quarantined
    if wished == V1:
        assert (now, begin) == (HOME, None)
    else:
        assert begin == Begin(*((Phase.FETCHING, V3) if wished else (Phase.RETIRING, V1)))


def test_a_canary_that_is_wished_for_again_is_tried_again():
    now, _ = step(at(Phase.CANARY), Desired(V3))
    now, _ = step(now, Desired(V2))
    assert step(now, Passed(Phase.ROLLING_BACK, V2))[1] == Begin(Phase.FETCHING, V2)


def test_a_wish_during_probation_waits_for_its_end():
    """[rollout-2.2]"""
    now, begin = step(at(Phase.PROBATION), Desired(V3))
    assert begin is None
    now, begin = step(now, Passed(Phase.PROBATION, V2))
    assert begin == Begin(Phase.FETCHING, V3)
    assert now.active == V2


@pytest.mark.parametrize("phase", HAPPY_PATH)
def test_wishing_again_for_the_candidate_changes_nothing(phase):
    assert step(at(phase), Desired(V2)) == (at(phase), None)


def test_wishing_for_the_candidate_withdraws_the_wish_that_waited():
    now, _ = step(at(Phase.PROBATION), Desired(V3))
    assert step(now, Desired(V2)) == (at(Phase.PROBATION), None)


def test_wishing_for_what_is_being_rolled_back_is_answered_with_its_quarantine():
    now, _ = step(at(Phase.PROBATION), Failed(Phase.PROBATION, V2, "nan", Blame.VERDICT))
    now, begin = step(now, Desired(V2))
    assert begin is None
    end, _ = drive(now, Begin(Phase.ROLLING_BACK, V2))
    assert (end.phase, end.active) == (Phase.STEADY, V1)
    assert end.reason == f"{V2} failed probation: nan; it is quarantined; `retry` forgives it"
    assert step(end, Desired(V2)) == (end, None)


def test_the_first_model_ever_may_fail_and_leave_nothing_active():
    end, _ = drive(*step(Rollout(), Desired(V2)), fail_in=Phase.PROBATION)
    assert (end.active, end.known_good) == (None, None)


def test_nobody_goes_back_below_the_floor_that_was_signed():
    """[rollout-3.5]"""
    now = replace(at(Phase.PROBATION), active=V2)
    now, begin = step(now, Floor(V1.release + 1))
    assert (begin, now.known_good) == (None, V1)  # it is not needed, and what runs runs on
    now, begin = step(now, Failed(Phase.PROBATION, V2, "nan", Blame.VERDICT))
    assert (now.phase, now.known_good) == (Phase.ROLLING_BACK, None)
    now, _ = step(now, Passed(Phase.ROLLING_BACK, V2))
    assert (now.phase, now.active) == (Phase.STEADY, None)
    home, _ = step(replace(HOME, active=V2, known_good=V2, previous=V1), Floor(V1.release + 1))
    assert step(home, Condemned(V2, "nan")) == (home, None)


def test_a_floor_never_goes_down_and_stops_nothing_that_runs():
    """[rollout-3.5]"""
    now, _ = step(HOME, Floor(9))
    assert step(now, Floor(3)) == (now, None)
    now, begin = step(now, Desired(V2))
    end, _ = drive(now, begin, fail_in=Phase.CANARY, blame=Blame.VERDICT)
    assert (end.active, end.known_good) == (V1, V1)


def test_a_late_answer_is_ignored():
    """[rollout-1.6]"""
    now = at(Phase.SHADOW)
    assert step(now, Passed(Phase.FETCHING, V2)) == (now, None)
    assert step(now, Passed(Phase.SHADOW, V3)) == (now, None)


def test_a_quarantined_version_is_not_fetched_again_until_it_is_forgiven():
    """[rollout-1.3]"""
    home = replace(HOME, quarantined=(V2.digest,))
    now, begin = step(home, Desired(V2))
    assert (now.phase, begin) == (Phase.STEADY, None)
    assert "quarantined" in now.reason
    now, _ = step(now, Forgiven())
    assert step(now, Desired(V2))[1] == Begin(Phase.FETCHING, V2)


def test_the_quarantine_is_bounded_and_forgets_the_oldest():
    now = HOME
    for n in range(QUARANTINED_MAX + 5):
        bad = ModelRef("bearing", 100 + n, Digest(f"sha256:{100 + n:064x}"))
        now, _ = drive(*step(now, Desired(bad)), fail_in=Phase.PREFLIGHT)
    assert len(now.quarantined) == QUARANTINED_MAX
    assert bad.digest in now.quarantined


def test_a_model_no_longer_desired_is_retired():
    """[rollout-2.4]"""
    now, begin = step(HOME, Desired(None))
    assert begin == Begin(Phase.RETIRING, V1)
    end, _ = drive(now, begin)
    assert (end.active, end.known_good, end.previous) == (None, None, None)
    assert kept(end) == loaded(end) == frozenset()


@pytest.mark.parametrize("phase", sorted(ABANDONABLE))
def test_a_candidate_no_longer_desired_is_abandoned_with_the_active_one(phase):
    """[rollout-2.4]"""
    now, begin = step(at(phase), Desired(None))
    assert begin == Begin(Phase.RETIRING, V1)
    assert V2 not in kept(now)


def test_retiring_what_never_was_is_done_at_once():
    assert step(Rollout(), Desired(None)) == (Rollout(), None)


def test_an_operator_may_go_back_to_the_version_before():
    """[rollout-3.2]"""
    now, begin = step(HOME, Condemned(V1, "rolled back by command"))
    assert begin == Begin(Phase.ROLLING_BACK, V1)
    end, _ = drive(now, begin)
    assert (end.active, end.known_good, end.previous) == (V0, V0, None)
    assert V1.digest in end.quarantined
    assert "by command" in end.reason


@pytest.mark.parametrize("phase", sorted(LIVE))
def test_condemning_the_candidate_fails_its_phase(phase):
    end, _ = drive(*step(at(phase), Condemned(V2, "worker died 3 times")))
    assert (end.phase, end.active) == (Phase.STEADY, V1)
    assert V2.digest in end.quarantined


@pytest.mark.parametrize("phase", sorted(ABANDONABLE))
def test_an_active_version_that_fails_while_another_is_tried_goes_first(
    phase,
):
    """[rollout-7.4]"""
    now, begin = step(at(phase), Condemned(V1, "failed while serving: nan"))
    assert begin == Begin(Phase.ROLLING_BACK, V1)
    assert V2 not in loaded(now)
    assert "nan" in now.reason
    assert recover(now)[1] == begin
    now, begin = step(now, Passed(Phase.ROLLING_BACK, V1))
    assert (now.active, now.known_good, now.previous) == (V0, V0, None)
    assert begin == Begin(Phase.FETCHING, V2)
    end, _ = drive(now, begin)
    assert (end.active, end.known_good, end.previous) == (V2, V2, V0)
    assert end.quarantined == (V1.digest,)


def test_an_active_version_that_fails_beside_a_canary_goes_with_what_the_canary_has_said():
    """[rollout-7.4]"""
    now, begin = step(at(Phase.CANARY), Condemned(V1, "failed while serving: nan"))
    assert begin == Begin(Phase.ROLLING_BACK, V2)
    assert now.reason == f"{V1} failed while serving: nan"
    assert now.known_good == V0
    assert loaded(now) == {V0, V1, V2}
    assert recover(now)[1] == begin
    now, begin = step(now, Passed(Phase.ROLLING_BACK, V2))
    assert (now.active, now.known_good, begin) == (V0, V0, Begin(Phase.FETCHING, V2))
    assert drive(now, begin)[0].quarantined == (V1.digest,)


@pytest.mark.parametrize("phase", sorted({*HEARD, *ABANDONABLE}))
def test_while_another_is_tried_the_last_version_there_is_is_not_condemned(phase):
    """[rollout-3.3]"""
    last = replace(at(phase), previous=None)
    if last.active == V1:
        assert step(last, Condemned(V1, "worker died")) == (last, None)


@pytest.mark.parametrize("phase", [Phase.PROMOTING, Phase.ROLLING_BACK, Phase.RETIRING])
def test_while_the_stream_changes_hands_the_active_version_is_not_condemned(phase):
    """What is seen just then may be the doing of either."""
    now = at(phase, previous=V3)
    assert step(now, Condemned(V1, "failed while serving: nan")) == (now, None)


def test_condemning_the_last_version_there_is_changes_nothing():
    """[rollout-3.3]"""
    last = Rollout(active=V1, known_good=V1)
    assert step(last, Condemned(V1, "worker died")) == (last, None)


def test_condemning_a_version_not_in_play_changes_nothing():
    assert step(HOME, Condemned(V3, "late")) == (HOME, None)
    assert step(at(Phase.FETCHING), Condemned(V2, "late")) == (at(Phase.FETCHING), None)


def test_the_known_good_stays_loaded_until_probation_is_over():
    """[rollout-3.1]"""
    assert loaded(at(Phase.PROBATION)) == {V1, V2}
    end, _ = drive(at(Phase.PROBATION), Begin(Phase.PROBATION, V2))
    assert loaded(end) == {V2}
    assert kept(end) == {V1, V2}


def test_what_is_taken_away_stays_loaded_until_it_has_ended():
    """[rollout-3.1] Though it never became the active version."""
    assert loaded(at(Phase.ROLLING_BACK)) == {V1, V2}


refs = st.sampled_from([V1, V2, V3])
phases = st.sampled_from(list(Phase))
events = st.one_of(
    st.builds(Desired, st.one_of(refs, refs, refs, st.none())),
    st.builds(Passed, phases, refs),
    st.builds(Failed, phases, refs, st.just("test"), st.sampled_from(list(Blame))),
    st.builds(Condemned, refs, st.just("test")),
    st.builds(Forgiven),
    st.builds(Floor, st.integers(0, 3)),
    st.just("answer"),  # stands for "the work in hand passed", so that walks get somewhere
    st.just("verdict"),  # and this for "it failed, and the bytes are to blame"
    st.just("restart"),
)


@given(st.lists(events, max_size=60))
@settings(max_examples=500, deadline=None)
def test_invariants_hold_on_any_walk(walk):
    now = HOME
    for event in walk:
        if event == "restart":
            after, begin = recover(now)
        elif event in ("answer", "verdict"):
            if now.candidate is None:
                continue
            outcome = (
                Passed(now.phase, now.candidate)
                if event == "answer"
                else Failed(now.phase, now.candidate, "test", Blame.VERDICT)
            )
            after, begin = step(now, outcome)
        else:
            after, begin = step(now, event)
        if begin is not None:
            assert (begin.phase, begin.ref) == (after.phase, after.candidate)
            if begin.phase is Phase.ROLLING_BACK:
                back = after.known_good
                assert back in (None, after.active) or back.release >= after.floor
        now = after
        assert (now.candidate is None) == (now.phase is Phase.STEADY)
        assert now.active in (now.known_good, now.candidate)
        assert (now.active is None) <= (now.known_good is None)
        if now.phase is Phase.PROBATION:
            assert now.known_good != now.candidate
        assert loaded(now) <= kept(now)
        if now.known_good is not None and now.known_good.digest in now.quarantined:
            # only an operator's wish for it could have brought it back, and only once forgiven
            raise AssertionError(now)
