"""What may be asked of the live session, what is refused and why."""

from contextlib import closing

import numpy as np
import pytest

from agent.core.errors import RefusedError
from agent.core.scores import Known
from agent.runtime.questions import ROWS_MAX, ask, known
from agent.runtime.seats import ready
from tests.world.river import TUMBLING_3, River, manifest, ref
from tests.world.scripted import ScriptedSession

TWO = {"features": {"names": ["v", "w"], "ranges": [[0, 100], [0, 100]]}}


@pytest.fixture
def river():
    with River() as river:
        yield river


def asked(river, inputs):
    return ask(river.scoring, inputs, river.clock.monotonic())[1]


@pytest.mark.parametrize(
    ("values", "scores"), [([1.0, 2.0, 3.0], [1, 2, 3]), (7, [7]), (2.5, [2.5]), ([1], [1])]
)
def test_each_row_is_answered_and_counted_nowhere(river, values, scores):
    river.swap(river.seat(1))
    answer = asked(river, {"v": values})
    river.finish()
    assert answer.result().score.tolist() == scores
    assert (river.account.readings, river.account.next_seq, river.records) == (0, 0, [])
    assert river.scoring.slot.seat.leases == 0


def test_as_many_rows_as_are_allowed_are_answered(river):
    river.swap(river.seat(1))
    answer = asked(river, {"v": list(range(ROWS_MAX))})
    river.finish()
    assert answer.result().score.tolist() == list(range(ROWS_MAX))


def test_a_version_is_known_by_its_features_and_columns(river):
    river.swap(river.seat(3))
    assert known(river.scoring) == Known(3, ("v",), ("score",))
    with closing(ScriptedSession(ref(4), features=2)) as session:
        labelled = {"score": {"tensor": "y", "threshold": 1}, "label": {"tensor": "y"}}
        river.swap(ready(manifest(**TWO, output=labelled), session, 0.0))
        assert known(river.scoring) == Known(4, ("v", "w"), ("score", "label", "alarm"))


def test_another_release_than_the_active_one_is_not_asked(river):
    river.swap(river.seat(3))
    release, answer = ask(river.scoring, {"v": 1}, river.clock.monotonic(), release=3)
    river.finish()
    assert (release, answer.result().score.tolist()) == (3, [1])
    with pytest.raises(RefusedError, match=r":2 is not active; .*:3 is") as refused:
        ask(river.scoring, {"v": 1}, river.clock.monotonic(), release=2)
    assert refused.value.code == 404
    with pytest.raises(RefusedError, match="no active version"), River() as nobody:
        known(nobody.scoring)


def test_without_a_version_there_is_nobody_to_ask(river):
    with pytest.raises(RefusedError, match="no active version") as refused:
        asked(river, {"v": 1})
    assert refused.value.code == 409


@pytest.mark.parametrize("kind", ["windows", "state"])
def test_a_version_that_needs_more_than_a_row_is_not_asked_for_one(river, kind):
    river.swap(river.seat(1, window=TUMBLING_3) if kind == "windows" else river.stateful(1))
    with pytest.raises(RefusedError, match="it has no single rows"):
        asked(river, {"v": 1})
    assert river.scoring.idle


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ([1.0], "an object of lists"),
        (None, "an object of lists"),
        ({}, "v is missing; the features are v, w"),
        ({"v": [1.0]}, "w is missing"),
        ({"v": [], "w": []}, "wants 1 to"),
        ({"v": [1.0] * (ROWS_MAX + 1), "w": [1.0] * (ROWS_MAX + 1)}, "wants 1 to"),
        ({"v": [[1.0]], "w": [1.0]}, "wants 1 to"),
        ({"v": "much", "w": [1.0]}, "no list of numbers"),
        ({"v": [1.0, 2.0], "w": [1.0]}, "differ in length"),
        ({"v": [1.0], "w": [101.0]}, "1 of 1 rows are out of range"),
        ({"v": [1.0, 2.0], "w": [1.0, None]}, "1 of 2 rows are out of range or miss a feature"),
    ],
)
def test_what_is_no_row_of_its_features_is_refused_with_the_reason(river, inputs, why):
    with closing(ScriptedSession(ref(1), features=2)) as session:
        seat = ready(manifest(**TWO), session, 0.0)
        river.swap(seat)
        with pytest.raises(RefusedError, match=why):
            asked(river, inputs)
        assert river.scoring.idle
        assert seat.leases == 0


def test_a_held_value_of_the_stream_is_no_answer_to_a_question(river):
    """What a sensor sent last is not what the question leaves out."""
    seat = river.seat(1)
    river.swap(seat)
    river.push(1)
    river.finish()
    with pytest.raises(RefusedError, match="1 of 1 rows"):
        asked(river, {"v": [np.nan]})


def test_who_gives_up_on_a_question_cannot_take_it_back(river):
    """The lane answers it, and must find it as it was."""
    river.swap(river.seat(1))
    answer = asked(river, {"v": 1})
    assert not answer.cancel()
    river.finish()
    assert answer.result().score.tolist() == [1]
