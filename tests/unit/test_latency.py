"""Latency in fixed memory: quantiles that never flatter, and a minute that forgets."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.latency import BUCKETS, LOWEST_MS, STEP, Latency, Recent

HIGHEST_MS = LOWEST_MS * STEP ** (BUCKETS - 1)


@given(
    st.lists(st.floats(LOWEST_MS, 90_000), min_size=1, max_size=50),
    st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
)
def test_a_quantile_is_never_flattered_and_at_most_one_step_too_high(times, share):
    latency = Latency()
    for ms in times:
        latency.add(ms)
    true = sorted(times)[math.ceil(share * len(times)) - 1]
    assert true * (1 - 1e-9) <= latency.quantile(share) <= true * STEP * (1 + 1e-9)


def test_of_nothing_there_is_no_quantile():
    assert math.isnan(Latency().quantile(0.99))


@pytest.mark.parametrize("ms", [0.0, -1.0, LOWEST_MS])
def test_the_lowest_bucket_takes_what_is_too_small_to_tell(ms):
    latency = Latency()
    latency.add(ms)
    assert latency.quantile(1.0) == LOWEST_MS


def test_the_highest_bucket_takes_what_is_too_large_to_tell():
    latency = Latency()
    latency.add(1e12)
    assert latency.quantile(0.5) == pytest.approx(HIGHEST_MS)
    assert latency.rows == 1


def test_rows_weigh():
    latency = Latency()
    latency.add(1.0, rows=99)
    latency.add(1000.0, rows=1)
    assert latency.rows == 100
    assert latency.quantile(0.99) < 2
    assert latency.quantile(0.995) > 900


def test_two_histograms_joined_are_as_one():
    one, other, whole = Latency(), Latency(), Latency()
    for ms, part in ((1, one), (5, other), (9, other)):
        part.add(ms)
        whole.add(ms)
    one.merge(other)
    assert np.array_equal(one.counts, whole.counts)
    assert other.rows == 2
    one.clear()
    assert one.rows == 0


def test_what_is_recent_is_forgotten_slice_by_slice():
    recent = Recent(slice_s=10.0, slices=3)
    for at in (0, 10, 20):
        recent.add(1.0, 1, now=1000.0 + at)
    assert recent.whole(1029.9).rows == 3
    assert recent.whole(1030.0).rows == 2
    assert recent.whole(1049.9).rows == 1
    assert recent.whole(1050.0).rows == 0


def test_after_a_long_silence_nothing_is_recent():
    recent = Recent(slice_s=10.0, slices=3)
    recent.add(1.0, 7, now=50.0)
    assert recent.whole(1e6).rows == 0
    recent.add(1.0, 2, now=1e6 + 1)
    assert recent.whole(1e6 + 2).rows == 2


def test_a_clock_that_steps_back_loses_nothing():
    recent = Recent(slice_s=10.0, slices=3)
    recent.add(1.0, 1, now=100.0)
    recent.add(1.0, 1, now=85.0)
    assert recent.whole(100.0).rows == 2


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 5)), max_size=40))
def test_what_is_recent_is_what_came_in_the_last_slices(steps):
    recent, now, came = Recent(slice_s=10.0, slices=3), 1000.0, []
    for pause, rows in steps:
        now += pause
        recent.add(1.0, rows, now)
        came.append((int(now / 10.0), rows))
        want = sum(rows for at, rows in came if at > int(now / 10.0) - 3)
        assert recent.whole(now).rows == want
