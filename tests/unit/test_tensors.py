"""Tensors: how features are joined to what a model takes, and what cannot be joined."""

import math

import numpy as np
import pytest

from agent.core.errors import UnfitError
from agent.core.manifest import Manifest
from agent.core.tensors import Assembler, cast
from agent.ports import TensorSpec


def manifest(names=("a", "b"), **more) -> Manifest:
    body = {"name": "m", "features": {"names": names}, "output": {"score": {"tensor": "y"}}}
    return Manifest.model_validate(body | more)


def spec(*shape, name="x", dtype="float32") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


SLIDING = {"kind": "sliding", "size": "3", "step": "1"}
FLAT = np.arange(8.0).reshape(4, 2)
DEEP = np.arange(24.0).reshape(4, 3, 2)


def test_by_default_there_is_one_tensor_of_batch_and_features():
    (x,) = Assembler(manifest(), [spec("N", 2)]).assemble(FLAT, None)
    assert (x.dtype, x.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(x, FLAT)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((None, 3, 2), DEEP),
        ((None, None, None), DEEP),
        (("N", "L", 2), DEEP),
        ((None, 2, 3), DEEP.swapaxes(1, 2)),
        ((None, 2, "L"), DEEP.swapaxes(1, 2)),
        ((None, 6), DEEP.reshape(4, 6)),
        ((None, None), DEEP.reshape(4, 6)),
        ((None, 1, 3, 2), DEEP.reshape(4, 1, 3, 2)),
        ((None, 1, 2, 3), DEEP.swapaxes(1, 2).reshape(4, 1, 2, 3)),
    ],
)
def test_a_window_takes_the_shape_the_model_says(shape, expected):
    (x,) = Assembler(manifest(window=SLIDING), [spec(*shape)]).assemble(DEEP, None)
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        *(((None, 3), None), ((None,), None), ((None, 2, 2), None), ((), None)),
        *(((None, 3, 4), SLIDING), ((None, 5), SLIDING), ((None,), SLIDING)),
        ((None, 2, 3, 2), SLIDING),
    ],
)
def test_a_shape_that_cannot_be_is_refused_with_both_sides_named(shape, window):
    with pytest.raises(UnfitError, match=r"input x has the shape \[.*features"):
        Assembler(manifest(window=window), [spec(*shape)])


def test_several_inputs_are_made_of_the_features_they_name_in_the_models_order():
    both = manifest(
        ("a", "b", "c"), input={"p": {"features": ["c", "a"]}, "q": {"features": ["b"]}}
    )
    inputs = [spec(None, 1, name="q", dtype="int64"), spec(None, 2, name="p")]
    values = np.array([[1.0, 2.5, 3.0], [4.0, 3.5, 6.0]])
    q, p = Assembler(both, inputs).assemble(values, None)
    assert (q.dtype, q.tolist()) == (np.int64, [[2], [4]])
    assert p.tolist() == [[3, 1], [6, 4]]
    assert p.flags.c_contiguous


def test_layout_columns_is_one_tensor_for_each_feature():
    inputs = [spec(None, 1, name="b"), spec(None, name="a", dtype="float64")]
    b, a = Assembler(manifest(layout="columns"), inputs).assemble(FLAT, None)
    assert (b.shape, a.shape) == ((4, 1), (4,))
    assert (b[:, 0].tolist(), a.tolist()) == ([1, 3, 5, 7], [0, 2, 4, 6])


@pytest.mark.parametrize(
    ("more", "inputs", "why"),
    [
        ({}, [spec(None, 1, name="a"), spec(None, 1, name="b")], "layout = 'columns'"),
        ({}, [], "0 inputs"),
        ({"layout": "columns"}, [spec(None, 1, name="a")], "one input per feature"),
        ({"input": {"z": {}}}, [spec(None, 2)], r"\[input\] speaks of z"),
        ({"input": {"x": {"dtype": "float64"}}}, [spec(None, 2)], "float64"),
        ({"state": {"h": "h2"}}, [spec(None, 2)], r"\[state\] speaks of h"),
        ({}, [spec(None, 2, dtype="str")], "numbers"),
        ({}, [spec(None, 2, dtype="no-such")], "numbers"),
    ],
)
def test_what_cannot_be_joined_is_said(more, inputs, why):
    with pytest.raises(UnfitError, match=why):
        Assembler(manifest(**more), inputs)


def test_states_stand_at_their_place_among_the_inputs():
    inputs = [spec(None, 5, name="h"), spec(None, 2)]
    state = np.ones((4, 5), np.float32)
    h, x = Assembler(manifest(state={"h": "h2"}), inputs).assemble(FLAT, {"h": state})
    assert h is state
    assert x.shape == (4, 2)


def test_a_model_of_fixed_rows_is_filled_up_by_who_runs_it():
    assembler = Assembler(manifest(), [spec(6, 2)])
    (x,) = assembler.assemble(FLAT, None)
    assert x.tolist() == FLAT.tolist(), "else nobody knew which rows of its answer count"


def test_the_type_to_keep_windows_in_loses_nothing():
    def kept(dtype):
        return Assembler(manifest(), [spec(None, 2, dtype=dtype)]).dtype

    assert {kept(d) for d in ("float32", "float16", "int8", "bool")} == {np.float32}
    assert {kept(d) for d in ("float64", "int32", "int64")} == {np.float64}


def test_casting_rounds_cuts_and_never_warns():
    values = np.array([[-math.inf, -1.5, -0.4, math.nan, 0.5, 1.5, 300.0, 1e300, math.inf]])
    assert cast(values, np.dtype("uint8")).tolist() == [[0, 0, 0, 0, 0, 2, 255, 255, 255]]
    assert cast(values, np.dtype("int8"))[0, [0, 1, 6]].tolist() == [-128, -2, 127]
    assert cast(values, np.dtype("int64"))[0, [0, 8]].tolist() == [-(2**63), 2**63 - 1024]
    assert cast(values, np.dtype("bool"))[0, [2, 3, 5]].tolist() == [False, False, True]
    assert cast(values, np.dtype("float32"))[0, 7] == math.inf
    assert cast(np.array([math.inf], np.float32), np.dtype("int32")).tolist() == [2**31 - 1]
