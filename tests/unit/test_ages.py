"""How long things have waited, whatever the wall clock does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.ages import Line, resumed

YEAR_S = 365 * 86400.0
NOW = 1_795_300_000.0


@given(st.lists(st.floats(-50 * YEAR_S, 50 * YEAR_S), min_size=1, max_size=50))
def test_no_step_of_the_wall_clock_ages_anything_while_the_agent_runs(steps):
    """[delivery-2.6]"""
    line, wall = Line(100.0, 0.0, NOW), NOW
    for second, step in enumerate(steps, 1):
        wall += step
        line.look(float(second), wall)
        assert line.now(float(second)) == 100.0 + second


@pytest.mark.parametrize("step", [-50 * YEAR_S, -3600.0, 3600.0, 50 * YEAR_S])
def test_a_clock_that_jumped_says_nothing_of_the_time_between_two_runs(step):
    line = Line(0.0, 0.0, NOW)
    assert line.look(10.0, NOW + 10.0) == NOW + 10.0
    assert line.look(11.0, NOW + 11.0 + step) == 0.0
    stored = line.look(12.0, NOW + 12.0)
    assert stored == 0.0, "once it has jumped it is not relied on in this run"
    assert resumed(12.0, stored, 5.0, NOW + YEAR_S).now(5.0) == 12.0


def test_time_away_counts_where_the_clock_was_steady_and_is_believed():
    assert resumed(50.0, NOW, 3.0, NOW + 600.0).now(4.0) == 651.0
    assert resumed(50.0, NOW, 3.0, NOW - 600.0).now(4.0) == 51.0
    assert resumed(50.0, NOW, 3.0, None).now(4.0) == 51.0
    assert resumed(50.0, 0.0, 3.0, NOW).now(4.0) == 51.0
