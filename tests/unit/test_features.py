"""Features: ranges, what is missing, what is held, and the scale."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.blocks import Block
from agent.core.errors import RefusedError
from agent.core.features import Featurizer
from agent.core.manifest import Features

NAN = math.nan


def block(*readings: tuple, names=("a", "b")) -> Block:
    """Readings as (key, value of each feature)."""
    table = np.array([r[1:] for r in readings], np.float64).reshape(len(readings), len(names))
    return Block(
        np.array([r[0] for r in readings], np.int32),
        np.arange(len(readings), dtype=np.float64),
        {name: table[:, i] for i, name in enumerate(names)},
        0.0,
    )


def features(**more) -> Features:
    return Features(names=("a", "b"), **more)


def test_values_come_in_the_order_of_the_names_and_scaled():
    featurizer = Featurizer(features(scale={"mean": (1, 2), "std": (2, 4)}))
    given_block = block((0, 10.0, 3.0), names=("b", "a"))
    rows = featurizer.featurize(given_block)
    assert rows.values.tolist() == [[1.0, 2.0]]
    assert given_block.columns["a"].tolist() == [3.0]  # the block is other models' too
    assert (rows.values.dtype, rows.keys.dtype) == (np.float64, np.int32)


def test_out_of_range_is_rejected_and_feeds_nothing():
    featurizer = Featurizer(features(ranges=((-20, 120), (0, 50))))
    rows = featurizer.featurize(block((0, 120, 50), (0, 1, 50.1), (0, -20.1, 1), (0, NAN, 0)))
    assert rows.values.tolist() == [[120, 50], [120, 0]]
    assert rows.times.tolist() == [0, 3]
    assert rows.rejected == {"range": 2}


def test_what_is_held_comes_from_the_same_sensor_in_this_block_or_before():
    featurizer = Featurizer(features())
    first = featurizer.featurize(block((0, 1, NAN), (1, 5, 6), (0, NAN, 2), (1, NAN, 7)))
    assert first.values.tolist() == [[5, 6], [1, 2], [5, 7]]  # the first reading still lacked b
    assert first.rejected == {"missing": 1}
    second = featurizer.featurize(block((2, NAN, 1), (0, NAN, NAN), (1, 8, NAN)))
    assert second.values.tolist() == [[1, 2], [8, 7]]
    assert second.rejected == {"missing": 1}


def test_each_feature_has_its_policy():
    names = ("hold", "nan", "reject", "zero")
    policy = Features(names=names, missing=("hold", "nan", "reject", 0.0))
    featurizer = Featurizer(policy)
    rows = featurizer.featurize(
        block(
            (0, 1, NAN, 1, NAN),
            (0, NAN, 2, 2, 3),
            (0, 3, 3, NAN, 3),
            (0, NAN, 4, 4, 4),
            names=names,
        )
    )
    np.testing.assert_array_equal(rows.values, [[1, NAN, 1, 0], [1, 2, 2, 3], [3, 4, 4, 4]])
    assert rows.rejected == {"missing": 1}


def test_a_column_the_block_lacks_is_missing():
    rows = Featurizer(features(missing="nan")).featurize(block((0, 1), names=("a",)))
    np.testing.assert_array_equal(rows.values, [[1, NAN]])


def test_what_is_held_survives_a_restart_and_fits_no_other_features():
    before, after = Featurizer(features()), Featurizer(features())
    before.featurize(block((3, 1, 2)))
    after.restore(before.snapshot())
    assert after.featurize(block((3, NAN, NAN))).values.tolist() == [[1, 2]]
    assert after.featurize(block((2, NAN, NAN))).rejected == {"missing": 1}
    with pytest.raises(RefusedError):
        Featurizer(Features(names=("a", "c"))).restore(before.snapshot())


@pytest.mark.parametrize(("missing", "kept"), [("hold", True), ("nan", False), ("reject", False)])
def test_rows_that_were_filled_from_earlier_readings_are_held_for_a_restart(missing, kept):
    featurizer = Featurizer(features(missing=missing))
    whole = block((0, 1, 2))
    featurizer.featurize(whole)
    assert not featurizer.remembers
    whole.filled = True
    featurizer.featurize(whole)
    assert featurizer.remembers == kept


VALUE = st.sampled_from([NAN, 0.0, 1.0, 2.0, 99.0])
READING = st.tuples(st.integers(0, 2), VALUE, VALUE)
POLICY = st.sampled_from(["hold", "nan", "reject", 7.0])


@settings(max_examples=300, deadline=None)
@given(st.tuples(POLICY, POLICY), st.lists(st.lists(READING, max_size=8), max_size=4))
def test_features_are_what_a_plain_loop_makes_of_them(policy, blocks):
    featurizer = Featurizer(features(missing=policy, ranges=((0, 10), (0, 10))))
    held: dict = {}
    for readings in blocks:
        expected, rejected = [], {}
        for key, *values in readings:
            if any(value > 10 for value in values):
                rejected["range"] = rejected.get("range", 0) + 1
                continue
            row = []
            for i, (value, rule) in enumerate(zip(values, policy, strict=True)):
                if not math.isnan(value):
                    held[key, i] = value
                elif rule == "hold":
                    value = held.get((key, i))  # noqa: PLW2901
                elif rule == "reject":
                    value = None  # noqa: PLW2901
                elif rule != "nan":
                    value = rule  # noqa: PLW2901
                row.append(value)
            if None in row:
                rejected["missing"] = rejected.get("missing", 0) + 1
            else:
                expected.append(row)
        rows = featurizer.featurize(block(*readings))
        np.testing.assert_array_equal(rows.values, np.reshape(expected, (-1, 2)))
        assert rows.rejected == rejected
        assert len(rows) + sum(rejected.values()) == len(readings)
