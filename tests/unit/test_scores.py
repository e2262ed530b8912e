"""Scores: what is read out of the output tensors, and the message as interface.md §5.3 has it."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import UnfitError
from agent.core.manifest import Output
from agent.core.scores import ScoreColumns, encode, extract, join, split

F32 = np.float32


def output(score=None, label=None) -> Output:
    return Output.model_validate({"score": {"tensor": "y", **(score or {})}, "label": label})


def scored(array, n=2, **settings) -> ScoreColumns:
    return extract(output(settings), ["other", "y"], [np.zeros(n), array], n)


def test_a_score_is_a_column_or_several():
    assert scored(np.array([0.1, 0.9], F32)).score.shape == (2,)
    assert scored(np.array([[0.1], [0.9]])).score.tolist() == [0.1, 0.9]
    assert scored(np.array([[[1, 2]], [[3, 4]]])).score.tolist() == [[1, 2], [3, 4]]
    assert scored(np.array([[1, 2], [3, 4]]), column=1).score.tolist() == [2, 4]
    assert scored(np.array([[1], [3]]), column=-1).score.tolist() == [1, 3]
    assert scored(np.array([True, False])).score.dtype == np.float64


def test_at_or_above_the_threshold_alarms_and_nan_does_not():
    exact = np.array([0.7, 0.69999, 0.9, math.nan], F32)  # float32 0.7 is a little below 0.7
    assert scored(exact, n=4, threshold=0.7).alarm == [True, False, True, False]
    wide = np.array([[0.1, 0.9], [0.2, math.nan]])
    assert scored(wide, threshold=0.8).alarm == [True, False]
    assert scored(wide).alarm is None
    assert scored(np.empty((0, 1), F32), n=0, threshold=0.5).alarm == []


def labels(array, names=("ok", "worn")) -> list[str] | None:
    label = {"tensor": "l", "names": names} if names else {"tensor": "l"}
    return extract(output(label=label), ["y", "l"], [np.zeros(2), array], 2).label


def test_labels_are_numbers_through_names_or_text_as_it_is():
    assert labels(np.array([1, 0])) == ["worn", "ok"]
    assert labels(np.array([[1], [7]])) == ["worn", "7"]
    assert labels(np.array([1.0, -1.0], F32)) == ["worn", "-1"]
    assert labels(np.array([True, False])) == ["worn", "ok"]
    assert labels(np.array([[0.2, 0.8], [0.9, 0.1]])) == ["worn", "ok"]
    assert labels(np.array([3, 4]), names=None) == ["3", "4"]
    assert labels(np.array(["a", "b"])) == ["a", "b"]
    assert labels(np.array([b"a", "\ud800"], object)) == ["a", "?"]


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros((1, 2)), np.zeros(()), np.zeros((2, 0)), np.array(["a", "b"])],
)
def test_outputs_that_are_no_scores_are_refused(array):
    with pytest.raises(UnfitError, match="the output y"):
        scored(array)


def test_tensors_and_columns_that_are_not_there_are_refused():
    with pytest.raises(UnfitError, match="no column 2"):
        scored(np.zeros((2, 2)), column=2)
    with pytest.raises(UnfitError, match="the model gives z"):
        extract(output(), ["z"], [np.zeros(2)], 2)
    with pytest.raises(UnfitError, match="zipmap"):
        scored([{"a": 1.0}, {"a": 2.0}])
    with pytest.raises(UnfitError, match="several labels"):
        labels(np.array([["a", "b"], ["c", "d"]]))


def test_the_message_is_the_documented_one():
    columns = ScoreColumns(np.array([0.11, 0.93], F32), ["ok", "worn"])
    raw = encode(
        model="pump-anomaly", release=7, stream="pump", epoch=3, seq=1200, keys=["p1", "p2"],
        times=np.array([1732180000.0, 1732180000.2]), columns=columns,
    )  # fmt: skip
    assert raw == (
        b'{"schema":1,"model":"pump-anomaly","release":7,"stream":"pump","epoch":3,"seq":1200,'
        b'"key":["p1","p2"],"time":[1732180000.0,1732180000.2],"score":[0.11,0.93],'
        b'"label":["ok","worn"]}'
    )


def test_what_is_not_finite_is_null_and_alarms_come_with_a_threshold():
    score = np.array([[0.1, math.nan], [math.inf, 1.0], [2.0, 3.0]])[:, ::-1]
    raw = encode(
        model="m", release=1, stream="s", epoch=1, seq=1, keys=["", "é", "k"],
        times=np.zeros(6)[::2], columns=ScoreColumns(score, None, [False, True, True]),
        supersedes={"release": 2, "seq": [1, 3]},
    )  # fmt: skip
    document = json.loads(raw)
    assert document["score"] == [[None, 0.1], [1.0, None], [3.0, 2.0]]
    assert document["alarm"] == [False, True, True]
    assert document["supersedes"] == {"release": 2, "seq": [1, 3]}
    assert document["key"] == ["", "é", "k"]
    assert "label" not in document


def message(seq, rows, **more):
    members = {"model": "m", "release": 3, "stream": "s", "epoch": 1, **more}
    columns = ScoreColumns(
        np.linspace(0.1, 0.9, rows, dtype=np.float32) ** 7, alarm=[False] * (rows - 1) + [True]
    )
    keys = [f"p{n}" for n in range(seq, seq + rows)]
    times = 1.7e9 + np.arange(seq, seq + rows) / 3
    return encode(seq=seq, keys=keys, times=times, columns=columns, **members)


def rows_of(body):
    whole = json.loads(body)
    first = whole.pop("seq")
    columns = [whole.pop(name) for name in ("key", "time", "score", "alarm")]
    return [(first + n, *row, whole) for n, row in enumerate(zip(*columns, strict=True))]


def test_messages_in_a_row_are_one_with_the_same_rows():
    """[delivery-2.7]"""
    bodies = [message(5, 1), message(6, 3), message(9, 1)]
    ((count, body),) = join(bodies)
    assert count == 3
    assert rows_of(body) == [row for one in bodies for row in rows_of(one)]
    assert json.loads(body).keys() == json.loads(bodies[0]).keys()


@pytest.mark.parametrize(
    "other",
    [
        message(7, 1),
        message(6, 1, release=4),
        message(6, 1, epoch=2),
        message(6, 1, supersedes={"release": 2, "epoch": 1, "seq": 1, "rows": 1}),
        message(6, 1).replace(b'"alarm":[true]', b'"label":["x"]'),
        message(6, 1).replace(b'"seq":6', b'"seq":"6"'),
        *(b"", b"[]", b"{}", b"\xff", message(6, 1)[:-1]),
        b'{"seq":6,"key":["a"],"time":[]}',
    ],
)
def test_what_differs_in_more_than_its_rows_stays_as_it_is(other):
    """[delivery-2.7]"""
    bodies = [message(4, 1), message(5, 1), other, message(7, 1), message(8, 1)]
    made = join(bodies)
    assert [count for count, _ in made] == [2, 1, 2] or (made[1][0], len(made)) == (3, 2)
    assert any(body == other for _, body in made)


@given(rows=st.integers(1, 60), bytes_max=st.integers(1, 3000))
def test_a_message_is_cut_to_size_with_the_same_rows(rows, bytes_max):
    """[delivery-2.12]"""
    parts = split(message(5, rows), bytes_max)
    assert [row for part in parts for row in rows_of(part)] == rows_of(message(5, rows))
    assert all(len(part) <= bytes_max or len(rows_of(part)) == 1 for part in parts)


def test_what_takes_the_place_of_others_does_so_row_by_row_when_it_is_cut():
    """[delivery-2.12]"""
    old = {"release": 2, "epoch": 1, "seq": 10, "rows": 5}
    parts = [json.loads(part) for part in split(message(30, 5, supersedes=old), 1)]
    assert [part["seq"] for part in parts] == [30, 31, 32, 33, 34]
    assert [part["supersedes"] for part in parts] == [
        {**old, "seq": 10 + n, "rows": 1} for n in range(5)
    ]


@pytest.mark.parametrize("other", [b"", b"[]", b"{}", b"\xff", b"no message of scores"])
def test_what_is_no_message_of_scores_is_not_cut(other):
    assert split(other, 0) == [other]
