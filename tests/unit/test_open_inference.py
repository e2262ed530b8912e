"""Requests and answers of the Open Inference Protocol: each way to say them, what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import RefusedError
from agent.core.open_inference import BYTES_MAX, Asked, answer, metadata, read_request
from agent.core.scores import Known, ScoreColumns

KINDS = {"FP64": "<f8", "FP32": "<f4", "FP16": "<f2", "INT64": "<i8", "UINT8": "u1", "BOOL": "?"}


def tensor(data, name="v", datatype="FP64", shape=None, **more):
    shape = [len(data)] if shape is None else shape
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, **more}


def said(*tensors, **more):
    return json.dumps({"inputs": tensors, **more}).encode()


def binary(*columns, **more):
    """As Triton's client sends them: a head of JSON, and the tensors behind it."""
    heads = [
        {
            "name": name,
            "datatype": kind,
            "shape": [len(values)],
            "parameters": {"binary_data_size": np.array(values, KINDS[kind]).nbytes},
        }
        for name, kind, values in columns
    ]
    head = json.dumps({"inputs": heads, **more}).encode()
    return head + b"".join(np.array(v, KINDS[k]).tobytes() for _, k, v in columns), len(head)


def test_features_come_flat_or_as_columns_and_null_is_missing():
    """[http-8.3]"""
    asked = read_request(
        said(
            tensor([1, 2.5, None]),
            tensor([[1], [2], [3]], "w", "INT64", [3, 1]),
            id="a",
            outputs=[{"name": "score"}],
            parameters={"binary_data_output": True},
        )
    )
    assert np.array_equal(asked.inputs["v"], [1, 2.5, np.nan], equal_nan=True)
    assert asked.inputs["w"].tolist() == [1, 2, 3]
    assert (asked.ident, asked.wanted) == ("a", ("score",))


@given(
    st.sampled_from(sorted(KINDS)), st.lists(st.integers(0, 1), max_size=9), st.integers(0, 2**16)
)
def test_bytes_say_what_numbers_say(kind, values, more):
    """[http-8.3]"""
    body, json_bytes = binary(("v", kind, values), ("w", "FP64", [more] * 3))
    asked = read_request(body, json_bytes)
    assert asked.inputs["v"].tolist() == values
    assert asked.inputs["w"].tolist() == [more] * 3


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[]", "an object is wanted"),
        (b"{}", "one tensor for each feature"),
        (said(id=3), "id is a string"),
        (said({"datatype": "FP32"}), "each with its name"),
        (b'{"inputs": 1}', "each with its name"),
        (said(tensor([1]), tensor([2])), "v is there twice"),
        (said(tensor(["1"], datatype="BYTES")), "v is of no datatype"),
        (said(tensor([1], datatype=["FP32"])), "v is of no datatype"),
        (said(tensor(["1"])), "no list of numbers"),
        (said(tensor([[[1]]])), "no list of numbers"),
        (said(tensor(1, shape=[1])), "no list of numbers"),
        (said({"name": "v", "datatype": "FP32", "shape": [1]}), "no list of numbers"),
        (said(tensor([1, 2], shape=[1])), "has 2 numbers and the shape"),
        (said(tensor([1, 2], shape=[1, 2])), "has 2 numbers and the shape"),
        (said(tensor([1], shape=None) | {"shape": "1"}), "has 1 numbers and the shape"),
        (said(tensor([10**400])), "digits"),
        (said(tensor([5], datatype="BOOL")), "a number that is no BOOL"),
        (said(tensor([-1], datatype="UINT8")), "a number that is no UINT8"),
        (said(tensor([1.5], datatype="INT32")), "a number that is no INT32"),
        (said(tensor([None], datatype="INT64")), "a number that is no INT64"),
        (said(tensor([1e6], datatype="FP16")), "a number that is no FP16"),
        (said(tensor([[1, 2]], shape=[2])), "no list of numbers"),
        (said(tensor([[1], [], [2, 3]], shape=[3])), "no list of numbers"),
        (said(tensor([1], shape=[True])), "has 1 numbers and the shape"),
        (said(tensor([1], shape=[1.0])), "has 1 numbers and the shape"),
        (said(tensor([1]), outputs=["score"]), "outputs is a list of objects"),
        (said(tensor([1], parameters={"binary_data_size": 8})), "has no 8 bytes of FP64"),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(body, why):
    """[http-8.4]"""
    with pytest.raises(RefusedError, match=why):
        read_request(body)


@pytest.mark.parametrize("size", [-1, 7, 17, "8", True, None])
def test_tensors_are_as_long_as_they_are_said_to_be(size):
    """[http-8.4]"""
    head = said(
        {"name": "v", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": size}}
    )
    with pytest.raises(RefusedError, match=r"bytes of FP64|no list of numbers"):
        read_request(head + bytes(16), len(head))


def test_bytes_that_no_tensor_has_are_refused():
    """[http-8.4]"""
    body, json_bytes = binary(("v", "FP64", [1.0]))
    with pytest.raises(RefusedError, match="1 bytes behind the last"):
        read_request(body + b"x", json_bytes)
    with pytest.raises(RefusedError, match="not 1000 of JSON"):
        read_request(body, 1000)
    with pytest.raises(RefusedError) as refused:
        read_request(b" " * (BYTES_MAX + 1))
    assert refused.value.code == 413


@given(st.binary(max_size=200), st.none() | st.integers(0, 220))
def test_no_bytes_raise_anything_else(body, json_bytes):
    """[http-8.4]"""
    try:
        read_request(body, json_bytes)
    except RefusedError as error:
        assert str(error)


def test_the_answer_is_the_columns_of_a_score_message():
    """[http-8.3]"""
    columns = ScoreColumns(np.array([0.5, np.nan], np.float32), ["ok", "worn"], [False, False])
    told = answer("m", 3, Asked({}, "a"), columns)
    assert told == {
        "model_name": "m",
        "model_version": "3",
        "id": "a",
        "outputs": [
            tensor([0.5, None], "score", "FP32", [2]),
            tensor(["ok", "worn"], "label", "BYTES", [2]),
            tensor([False, False], "alarm", "BOOL", [2]),
        ],
    }
    some = answer("m", 3, Asked({}, None, ("label",)), columns)
    assert [one["name"] for one in some["outputs"]] == ["label"]
    assert "id" not in some
    with pytest.raises(RefusedError, match="gives score, label, alarm, and no y"):
        answer("m", 3, Asked({}, None, ("y",)), columns)


def test_scores_of_several_columns_keep_their_shape():
    """[http-8.3]"""
    told = answer("m", 1, Asked({}), ScoreColumns(np.array([[1.0, 2.0], [3.0, 4.0]])))
    assert told["outputs"] == [tensor([1.0, 2.0, 3.0, 4.0], "score", "FP64", [2, 2])]


def test_metadata_names_each_feature_and_each_column():
    """[http-8.2]"""
    (score,) = metadata("m", Known(1, ("v",), ("score",), "float64", 3))["outputs"]
    assert score == {"name": "score", "datatype": "FP64", "shape": [-1, 3]}
    told = metadata("m", Known(3, ("v", "w"), ("score", "label")))
    assert told == {
        "name": "m",
        "versions": ["3"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": name, "datatype": "FP64", "shape": [-1]} for name in ("v", "w")],
        "outputs": [
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }
