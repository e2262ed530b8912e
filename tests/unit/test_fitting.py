"""The memory plan: beside the active version, after it, or not at all; and the numbers to it."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.fitting import DropFirst, Have, Need, Overlap, Unschedulable, plan

sizes = st.floats(0, 1e6)
maybe = st.none() | sizes
needs = st.builds(Need, stated_mb=maybe, measured_mb=maybe, package_bytes=st.integers(0, 2**40))
wishes = st.sampled_from(["roomy", "tight"])


@st.composite
def devices(draw, active=maybe):
    limit = draw(sizes)
    return Have(limit_mb=limit, free_mb=draw(st.floats(0, limit)), active_mb=draw(active))


@given(needs, devices(), wishes)
def test_a_plan_never_promises_more_than_there_is(need, have, wish):
    """[rollout-9.1]"""
    decided = plan(need, have, wish)
    left = have.free_mb - have.reserve_mb - need.mb
    match decided:
        case Overlap():
            assert left >= 0
        case DropFirst():
            assert have.active_mb is not None
            assert left + have.active_mb >= 0
        case Unschedulable():
            assert left + (have.active_mb or 0.0) < 0


@given(needs, devices())
def test_roomy_overlaps_wherever_both_fit_and_drops_first_only_where_they_do_not(need, have):
    """[rollout-9.1]"""
    decided = plan(need, have, "roomy")
    if have.free_mb - have.reserve_mb - need.mb >= 0:
        assert isinstance(decided, Overlap)
        assert not decided.warning
    elif isinstance(decided, DropFirst):
        assert "dropped first" in decided.warning


@given(needs, devices(active=sizes))
def test_tight_never_has_two_versions_at_once(need, have):
    """[rollout-9.1]"""
    decided = plan(need, have, "tight")
    assert not isinstance(decided, Overlap)
    if isinstance(decided, DropFirst):
        assert not decided.warning  # it was wished
        assert decided.given_back_mb == have.active_mb


@given(needs, devices(), wishes, st.floats(0, 1e6))
def test_more_memory_never_makes_a_plan_worse(need, have, wish, more):
    rank = {Overlap: 0, DropFirst: 1, Unschedulable: 2}
    richer = Have(limit_mb=have.limit_mb, free_mb=have.free_mb + more, active_mb=have.active_mb)
    assert rank[type(plan(need, richer, wish))] <= rank[type(plan(need, have, wish))]


@given(needs, devices())
def test_both_wishes_agree_on_what_does_not_fit(need, have):
    roomy, tight = plan(need, have, "roomy"), plan(need, have, "tight")
    assert isinstance(roomy, Unschedulable) == isinstance(tight, Unschedulable)


@given(needs, wishes, maybe)
def test_a_machine_that_says_nothing_refuses_nothing(need, wish, active):
    have = Have(limit_mb=None, free_mb=None, active_mb=active)
    decided = plan(need, have, wish)
    assert not isinstance(decided, Unschedulable)
    assert isinstance(decided, DropFirst) == (wish == "tight" and active is not None)


def test_what_is_larger_than_the_whole_machine_is_refused_even_if_nobody_says_what_is_free():
    have = Have(limit_mb=1024.0, free_mb=None, active_mb=50.0, source="darwin")
    decided = plan(Need(stated_mb=2000.0), have, "roomy")
    assert isinstance(decided, Unschedulable)
    assert "this device has 973 MB for models at most" in decided.why


def test_the_refusal_has_the_numbers():
    """[rollout-9.2]"""
    have = Have(limit_mb=512.0, free_mb=200.0, active_mb=80.0, source="a control group")
    decided = plan(Need(stated_mb=300.0), have, "roomy")
    assert decided == Unschedulable(
        300.0,
        300.0 - (200.0 - 25.6) - 80.0,
        "it needs 300 MB of memory; 174 MB are free for it (reserve 26 MB of 512 MB, a control"
        " group), and dropping the active version would give back 80 MB: 46 MB are missing. Retire"
        " another model, raise the limit, or publish a smaller one",
    )


def test_a_fallback_from_roomy_says_why_readings_will_wait():
    """[rollout-9.1]"""
    have = Have(limit_mb=512.0, free_mb=200.0, active_mb=180.0, source="a control group")
    decided = plan(Need(stated_mb=300.0), have, "roomy")
    assert isinstance(decided, DropFirst)
    assert decided.warning.startswith("it needs 300 MB and 174 MB are free for it")
    assert round(decided.spare_mb, 1) == 54.4


def test_what_was_measured_here_counts_before_what_was_said_and_both_before_a_guess():
    size = 100 * 2**20
    assert Need(stated_mb=70, measured_mb=90, package_bytes=size).mb == 90
    assert Need(stated_mb=70, package_bytes=size).mb == 70
    guess = Need(package_bytes=size)
    assert guess.mb == 48 + 125
    assert guess.words == "about 173 MB (a guess: its manifest has no memory_mb)"


@given(sizes)
def test_the_reserve_stays_within_its_bounds(limit):
    have = Have(limit_mb=limit, free_mb=limit)
    assert 24 <= have.reserve_mb <= 256
    assert have.most_mb == max(0.0, limit - have.reserve_mb)
