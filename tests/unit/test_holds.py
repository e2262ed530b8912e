"""When a burst may be acknowledged: not before all of it, and never before an older one."""

from hypothesis import given
from hypothesis import strategies as st

from agent.ports import Burst
from agent.runtime.holds import Holds


def opened(holds, n=1):
    return [holds.open(None, Burst("s", [b"x"], 0.0, token=i)) for i in range(n)]


def test_a_burst_is_open_until_its_taker_lets_it_go():
    holds = Holds()
    (hold,) = opened(holds)
    assert holds.settled() == []
    hold.parts -= 1
    assert holds.settled() == [hold]


def test_a_burst_waits_for_its_last_part():
    holds = Holds()
    (hold,) = opened(holds)
    hold.parts += 2
    for left in (2, 1, 0):
        hold.parts -= 1
        assert holds.settled() == ([hold] if left == 0 else [])


def test_a_burst_is_settled_once():
    holds = Holds()
    (hold,) = opened(holds)
    hold.parts = 0
    assert len(holds) == 1
    assert list(holds.settled()) == [hold]
    assert list(holds.settled()) == []
    assert len(holds) == 0


@given(st.permutations(range(6)))
def test_bursts_are_settled_in_the_order_they_came_however_their_parts_end(order):
    holds = Holds()
    bursts = opened(holds, 6)
    settled = []
    for done, i in enumerate(order, 1):
        bursts[i].parts -= 1
        settled += holds.settled()
        ended = set(order[:done])
        first_open = next((n for n in range(6) if n not in ended), 6)
        assert settled == bursts[:first_open]
