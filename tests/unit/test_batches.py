"""Rows waiting for a batch: cut, joined, and never a sensor twice where state is carried."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.batches import Chunk, Waiting, unrepeated
from agent.runtime.holds import Hold
from agent.runtime.shares import Share
from tests.world.river import TUMBLING_3, River


@pytest.fixture
def river():
    with River() as river:
        yield river


def chunk(seat, keys, *, start=0, readings=None, arrived=0.0):
    keys = np.array(keys, np.int32)
    values = np.arange(start, start + len(keys), dtype=float)
    if seat.manifest.window is not None:
        values = values[:, None, None].repeat(3, axis=1)
    else:
        values = values[:, None]
    share = Share(Hold(None, None), parts=1)
    count = len(keys) if readings is None else readings
    seat.leases += 1
    return Chunk(seat, keys, values.ravel()[: len(keys)], values, count, arrived, [share])


def test_a_chunk_that_fits_goes_out_as_it_is(river):
    waiting, one = Waiting(), chunk(river.seat(1), [0, 1])
    waiting.add(one)
    assert waiting.next(4) == (one, 0)
    assert (waiting.rows, list(waiting.chunks)) == (0, [])


def test_chunks_are_joined_up_to_the_most_and_the_last_is_cut(river):
    seat, waiting = river.seat(1), Waiting()
    first, second = chunk(seat, [0, 1, 0], arrived=5.0), chunk(seat, [1, 1], start=3, arrived=6.0)
    waiting.add(first)
    waiting.add(second)
    batch, leases = waiting.next(4)
    assert batch.values.ravel().tolist() == [0, 1, 2, 3]
    assert batch.keys.tolist() == [0, 1, 0, 1]
    assert (batch.readings, batch.arrived, batch.shares) == (
        4,
        5.0,
        [*first.shares, *second.shares],
    )
    assert leases == 0  # one merged away, one more for the piece that stays
    assert [share.parts for share in batch.shares] == [1, 2]
    assert (len(second), second.readings, waiting.rows) == (1, 1, 1)
    rest, leases = waiting.next(4)
    assert rest.values.ravel().tolist() == [4]
    assert leases == 0


def test_a_batch_is_of_one_version(river):
    waiting = Waiting()
    old, new = chunk(river.seat(1), [0]), chunk(river.seat(2), [0])
    waiting.add(old)
    waiting.add(new)
    assert waiting.next(9)[0] is old
    assert waiting.next(9)[0] is new


def test_what_is_given_up_is_gone(river):
    seat, waiting = river.seat(1), Waiting()
    one, other = chunk(seat, [0, 1]), chunk(seat, [2])
    waiting.add(one)
    waiting.add(other)
    waiting.remove(one)
    assert (list(waiting.chunks), waiting.rows) == ([other], 1)


def test_the_readings_of_windows_are_settled_with_the_first_of_them(river):
    waiting = Waiting()
    waiting.add(chunk(river.seat(1, window=TUMBLING_3), [0, 0, 0], readings=9))
    assert [waiting.next(1)[0].readings for _ in range(3)] == [9, 0, 0]


def test_where_state_is_carried_no_sensor_is_twice_in_a_batch(river):
    waiting = Waiting()
    seat = river.stateful(1)
    waiting.add(chunk(seat, [0, 1]))
    waiting.add(chunk(seat, [2, 1, 0], start=2))
    batch, _ = waiting.next(9)
    assert batch.keys.tolist() == [0, 1, 2]
    batch, _ = waiting.next(9)
    assert batch.keys.tolist() == [1, 0]


def test_a_sensor_that_repeats_at_once_ends_the_batch_before_it(river):
    waiting = Waiting()
    seat = river.stateful(1)
    one, other = chunk(seat, [0]), chunk(seat, [0])
    waiting.add(one)
    waiting.add(other)
    assert waiting.next(9) == (one, 0)
    assert waiting.next(9) == (other, 0)


@given(st.lists(st.integers(0, 5)))
def test_unrepeated_is_the_longest_start_without_a_repeat(keys):
    n = unrepeated(np.array(keys, np.int32))
    assert len(set(keys[:n])) == n
    assert n == len(keys) or keys[n] in keys[:n]


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), max_size=8),
    st.integers(1, 6),
    st.sampled_from(["rows", "windows", "stateful"]),
)
def test_cutting_and_joining_loses_no_row_no_reading_no_burst_and_no_lease(blocks, rows_max, kind):
    with River() as river:
        seat = {
            "rows": lambda: river.seat(1),
            "windows": lambda: river.seat(1, window=TUMBLING_3),
            "stateful": lambda: river.stateful(1),
        }[kind]()
        waiting, shares, start = Waiting(), [], 0
        for keys in blocks:
            one = chunk(seat, keys, start=start)
            shares += one.shares
            start += len(keys)
            waiting.add(one)
        assert waiting.rows == start
        rows, readings = [], 0
        while waiting.chunks:
            batch, leases = waiting.next(rows_max)
            seat.leases += leases - 1
            assert 0 < len(batch) <= rows_max
            assert len(batch.values) == len(batch.times) == len(batch)
            if kind == "stateful":
                assert len(set(batch.keys.tolist())) == len(batch)
            rows += batch.values.reshape(len(batch), -1)[:, 0].tolist()
            readings += batch.readings
            for share in batch.shares:
                share.parts -= 1
        assert rows == list(range(start))
        assert (readings, waiting.rows, seat.leases) == (start, 0, 0)
        assert [share.parts for share in shares] == [0] * len(shares)
