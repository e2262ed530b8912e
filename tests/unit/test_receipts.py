"""The swap receipt: what it proves, in figures."""

import json
import math

import pytest

from agent.core.latency import Recent
from agent.runtime.receipts import SwapTrace
from tests.world.river import ref

V1, V2 = ref(1), ref(2)


def watched(*before_ms):
    recent, trace = Recent(), SwapTrace("swap", V1, V2)
    for ms in before_ms:
        recent.add(ms, 1, now=100.0)
    trace.watch(recent, 100.0)
    return trace


def test_a_clean_swap_has_no_gap_and_no_repeat():
    trace = watched(1.0, 1.0)
    trace.scored(V1, 0, 10, 2.0, 101.0)
    trace.swap(next_seq=10)
    trace.scored(V1, 10, 5, 3.0, 102.0)
    trace.scored(V2, 15, 5, 4.0, 102.25)
    trace.scored(V2, 20, 5, 4.0, 103.0)
    document = trace.document()
    assert (document["last_seq"], document["first_seq"]) == (14, 15)
    assert (document["gap"], document["duplicates"], document["pause_ms"]) == (0, 0, 250.0)
    assert document["rows"] == {"before": 2, "during": 15, "after": 10}
    p99 = document["p99_ms"]
    assert p99 == {
        "before": pytest.approx(1.0, rel=0.07),
        "during": pytest.approx(3.0, rel=0.07),
        "after": pytest.approx(4.0, rel=0.07),
    }
    assert trace.rows_new == 10


def test_a_hole_between_the_versions_is_a_gap():
    trace = watched()
    trace.swap(next_seq=10)
    trace.scored(V2, 13, 1, 1.0, 1.0)
    assert trace.gap == 3


def test_after_a_canary_the_versions_end_in_turns_and_nothing_is_lost():
    """[rollout-4.1] What the old version had in hand may end behind what its canary had."""
    trace = watched()
    trace.scored(V2, 0, 4, 1.0, 1.0)
    trace.swap(next_seq=4)
    trace.scored(V2, 4, 3, 1.0, 1.1)
    trace.scored(V1, 7, 9, 1.0, 1.2)
    trace.scored(V2, 16, 4, 1.0, 1.3)
    document = trace.document()
    assert (document["gap"], document["duplicates"]) == (0, 0)
    assert (document["first_seq"], document["last_seq"]) == (4, 15)


def test_a_row_the_old_version_gave_already_is_a_duplicate():
    trace = watched()
    trace.swap(next_seq=10)
    trace.scored(V2, 10, 2, 1.0, 1.0)
    trace.scored(V2, 5, 3, 1.0, 1.0)
    trace.scored(V2, 9, 1, 1.0, 1.0)
    trace.scored(V2, 12, 1, 1.0, 1.0)
    assert trace.repeated == 4


def test_before_the_new_version_has_scored_there_is_no_gap_and_no_pause():
    trace = watched()
    trace.swap(next_seq=10)
    document = trace.document()
    assert (document["gap"], document["first_seq"], document["pause_ms"]) == (0, None, None)
    assert document["counts"] is None, "nobody has said"
    assert document["last_seq"] == 9


def test_the_first_version_ever_has_no_last_row_before_it():
    trace = SwapTrace("swap", None, V1)
    trace.swap(next_seq=0)
    trace.scored(V1, 0, 3, 1.0, 1.0)
    document = trace.document()
    assert (document["last_seq"], document["first_seq"], document["gap"]) == (None, 0, 0)
    assert document["from"] is None
    assert document["pause_ms"] is None


def test_rows_that_supersede_others_before_the_first_of_the_new_version_are_no_gap():
    trace = watched()
    trace.scored(V1, 0, 10, 1.0, 1.0)
    trace.swap(next_seq=10)
    trace.superseded(4)
    trace.scored(V2, 14, 1, 1.0, 2.0)
    trace.superseded(4)
    trace.scored(V2, 19, 1, 1.0, 3.0)
    assert (trace.gap, trace.repeated) == (0, 0)


def test_before_the_swap_rows_of_the_candidate_are_none_of_its_own():
    trace = watched()
    trace.scored(V2, 0, 3, 1.0, 1.0)
    assert (trace.rows_new, trace.during.rows) == (0, 3)


def test_a_finished_receipt_does_not_change():
    trace = watched()
    trace.swap(next_seq=1)
    trace.scored(V2, 1, 1, 1.0, 1.0)
    trace.finished = True
    before = trace.document()
    trace.scored(V2, 2, 5, 9.0, 2.0)
    assert trace.document() == before


def test_the_receipt_can_be_written_as_strict_json_even_when_nothing_was_seen():
    trace = SwapTrace("rollback", V2, None, why="nan")
    trace.rss_before, trace.rss_after = 3 * 2**20, 2**19
    document = json.loads(json.dumps(trace.document(), allow_nan=False))
    assert document["p99_ms"] == {"before": None, "during": None, "after": None}
    assert document["rss_mb"] == {"before": 3.0, "after": 0.5}
    assert (document["kind"], document["why"], document["to"]) == ("rollback", "nan", None)
    assert document["from"] == {"release": 2, "digest": V2.digest}


@pytest.mark.parametrize("now", [100.0, 1e9])
def test_what_is_before_is_what_was_recent_when_the_candidate_started_to_load(now):
    recent, trace = Recent(), SwapTrace("swap", V1, V2)
    recent.add(5.0, 3, now=100.0)
    trace.watch(recent, now)
    recent.add(500.0, 99, now=now)
    assert trace.before.rows == (3 if now == 100.0 else 0)
    assert math.isnan(trace.after.quantile(0.5))
