"""What is seen of a version: counted once, in fixed memory, and told without what is not known."""

import math

import numpy as np
import pytest

from agent.core import evidence
from agent.core.evidence import LATEST_ROWS, RSS_SLACK_BYTES, Evidence
from agent.core.scores import ScoreColumns

MB = 2**20


def said(*scores):
    return ScoreColumns(np.array(scores, np.float64))


def test_without_another_version_there_is_nothing_to_compare():
    seen = Evidence()
    assert seen.compared(said(math.nan), said(1.0)) == 0
    seen.scored(3, 2.0, 10.0)
    told = seen.document()
    assert (told["windows"], told["agreement"], told["score_distance"]) == (3, None, None)


def test_windows_are_those_that_were_compared_once_that_is_done():
    """[rollout-5.1] A shadow that had no time for some is not said to have shown them."""
    seen = Evidence()
    seen.hold_against(1e-3, 1e-4)
    seen.scored(5, 2.0, 10.0)
    assert seen.compared(said(1.0, 2.0, math.nan), said(1.0, 3.0, 4.0)) == 1
    told = seen.document()
    assert (told["windows"], told["agreement"]) == (3, 0.3333)


def test_the_latest_begin_anew_while_all_go_on():
    seen = Evidence()
    seen.hold_against(1e-3, 1e-4)
    rows = said(*np.zeros(LATEST_ROWS - 1))
    seen.compared(rows, rows)
    seen.compared(said(0.0), said(0.0))
    assert (seen.comparison.rows, seen.latest.rows) == (LATEST_ROWS, LATEST_ROWS)
    seen.compared(said(0.0, 1.0), said(0.0, 0.0))
    assert (seen.comparison.rows, seen.latest.rows) == (LATEST_ROWS + 2, 2)
    assert (seen.latest.agreed, seen.latest.rtol, seen.latest.atol) == (1, 1e-3, 1e-4)


@pytest.mark.parametrize(
    ("first", "said_mb", "most"),
    [
        (0, None, math.inf),  # not known
        (0, 100, math.inf),
        (50, None, 100 + 64),  # twice what it took
        (50, 20, 100 + 64),
        (50, 100, 150 + 64),  # half as much again as it says it takes
    ],
)
def test_a_leak_is_more_than_what_was_proven_and_said_allows(first, said_mb, most):
    """[rollout-5.7]"""
    assert RSS_SLACK_BYTES == 64 * MB
    seen = Evidence(rss_first_bytes=first * MB, memory_mb=said_mb)
    assert min(seen.rss_bytes_max, 2**62) == min(most * MB, 2**62)


def test_what_is_told_says_of_which_phase_and_by_which_bars():
    told = evidence.testimony("shadow", 7, Evidence(errors=2, skipped=3), {"errors": 0}, 40)
    assert (told["phase"], told["release"], told["wanted"]) == ("shadow", 7, 40)
    assert (told["bars"], told["errors"], told["skipped"]) == ({"errors": 0}, 2, 3)
    assert told["latency_ms"] == {"p50": None, "p99": None}
    assert told["before_p99_ms"] is None
