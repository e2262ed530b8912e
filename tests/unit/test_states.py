"""States carried per sensor, and waves in which no sensor comes twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import RefusedError, UnfitError
from agent.core.states import States, waves
from agent.ports import TensorSpec

X = TensorSpec("x", "float32", ("N", 2))


def keys(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def states(shape, out=None, dtype="float32", x=X) -> States:
    h = TensorSpec("h", dtype, shape)
    return States({"h": "h2"}, [x, h], [TensorSpec("h2", "float32", out or shape)])


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((None, 3), 0), (("N", 3), 0), ((2, None, 3), 1), ((2, "N", 3), 1), ((2, 3, None), 2)],
)
def test_states_start_at_zero_and_come_back_to_their_sensor(shape, axis):
    carried = states(shape)
    first = carried.gather(keys(5, 1))["h"]
    assert first.shape == tuple(2 if i == axis else d for i, d in enumerate(shape))
    assert not first.any()
    assert first.flags.c_contiguous
    given_back = np.random.default_rng(1).normal(size=first.shape).astype(np.float32)
    carried.scatter(keys(5, 1), {"h2": given_back, "y": np.zeros(2)})
    again = carried.gather(keys(1, 40, 5))["h"]
    np.testing.assert_array_equal(again.take(0, axis), given_back.take(1, axis))
    np.testing.assert_array_equal(again.take(2, axis), given_back.take(0, axis))
    assert not again.take(1, axis).any()


def test_a_model_of_fixed_rows_gives_padding_that_is_not_kept():
    carried = states((1, 4, 3), x=TensorSpec("x", "float32", (4, 2)))
    carried.scatter(keys(0, 1), {"h2": np.ones((1, 4, 3), np.float32)})
    assert carried.gather(keys(0, 1, 2))["h"].sum() == 6


@pytest.mark.parametrize(
    ("shape", "out", "dtype"),
    [
        ((None, 3), (None, 4), "float32"),
        ((None, 3), (None,), "float32"),
        ((7, 3), None, "float32"),
        ((None, None), None, "float32"),
        (("N", "H"), None, "float32"),
        ((None, 3), None, "float64"),
        ((None, 3), None, "str"),
    ],
)
def test_states_that_cannot_be_carried_are_refused(shape, out, dtype):
    with pytest.raises(UnfitError, match=r"\[state\]"):
        states(shape, out, dtype)


def test_a_state_of_no_such_tensor_is_refused():
    with pytest.raises(UnfitError, match="lacks"):
        States({"h": "h2"}, [X], [])


def test_an_output_of_another_shape_is_refused_and_changes_nothing():
    carried = states((None, 3))
    carried.scatter(keys(0), {"h2": np.ones((1, 3), np.float32)})
    for shape in ((1, 4), (3,), (0, 3)):
        with pytest.raises(UnfitError):
            carried.scatter(keys(0), {"h2": np.zeros(shape, np.float32)})
    assert carried.gather(keys(0))["h"].tolist() == [[1, 1, 1]]


def test_a_state_that_is_no_finite_number_is_forgotten_and_no_other():
    carried = states((None, 3))
    rows = np.array([[1, 2, 3], [1, np.nan, 3], [np.inf, 2, 3]], np.float32)
    carried.scatter(keys(0, 1, 2), {"h2": rows})
    carried.forget_broken()
    assert carried.gather(keys(0, 1, 2))["h"].tolist() == [[1, 2, 3], [0, 0, 0], [0, 0, 0]]


def test_states_survive_a_restart_and_know_those_of_another_shape():
    old, restarted = states((None, 3)), states((None, 3))
    old.scatter(keys(2), {"h2": np.full((1, 3), 7, np.float32)})
    restarted.restore(old.snapshot())
    old.scatter(keys(2), {"h2": np.zeros((1, 3), np.float32)})
    assert restarted.gather(keys(2))["h"].tolist() == [[7, 7, 7]]
    assert restarted.like(old)
    other = states((None, 4))
    assert not other.like(old)
    for raw in (old.snapshot(), b"junk"):
        with pytest.raises(RefusedError):
            other.restore(raw)


def test_states_follow_their_sensors_to_other_numbers():
    carried = states((None, 2))
    carried.scatter(keys(0, 1, 2), {"h2": np.array([[1, 1], [2, 2], [3, 3]], np.float32)})
    there = carried.renumbered(keys(4, -1, 0, 9)).gather(keys(0, 4, 9, 1))["h"]
    assert there.tolist() == [[3, 3], [1, 1], [0, 0], [0, 0]]
    assert carried.renumbered(keys()).gather(keys(0))["h"].tolist() == [[0, 0]]
    assert states((None, 2)).renumbered(keys(3)).gather(keys(3))["h"].tolist() == [[0, 0]]


@given(st.lists(st.integers(0, 4), max_size=30))
def test_waves_hold_no_key_twice_keep_each_keys_order_and_cover_all(numbers):
    parts = waves(keys(*numbers))
    for wave in parts:
        assert len({numbers[i] for i in wave}) == len(wave) > 0
    rows = [int(i) for wave in parts for i in wave]
    assert sorted(rows) == list(range(len(numbers)))
    for key in set(numbers):
        mine = [i for i in rows if numbers[i] == key]
        assert mine == sorted(mine)
    assert len(parts) == max((numbers.count(k) for k in numbers), default=0)


def test_a_wave_has_its_rows_in_order_of_arrival():
    for wave in waves(np.random.default_rng(1).integers(0, 90, 900).astype(np.int32)):
        assert wave.tolist() == sorted(wave.tolist())
