"""The judge, by example: what evidence against what bar gives which verdict."""

import math

import pytest

from agent.core.evidence import Evidence
from agent.core.judge import LATENCY_SLACK_MS, ROWS_FOR_P99, probation
from agent.core.manifest import ProbationBar


def seen(windows=0, seconds=0.0, *, errors=0, ms=None, rows=ROWS_FOR_P99, before=math.nan):
    evidence = Evidence(windows, errors, seconds=seconds, before_p99_ms=before, why="nan")
    if ms is not None:
        evidence.latency.add(ms, rows)
    return evidence


@pytest.mark.parametrize(
    ("evidence", "bar", "word"),
    [
        (seen(), ProbationBar(), "PASS"),
        (seen(99), ProbationBar(windows=100), "WATCH"),
        (seen(100), ProbationBar(windows=100), "PASS"),
        (seen(seconds=9.9), ProbationBar(time=10.0), "WATCH"),
        (seen(seconds=10.0), ProbationBar(time=10.0), "PASS"),
        (seen(1000, 1.0), ProbationBar(windows=100, time=10.0), "WATCH"),
        (seen(1, 100.0), ProbationBar(windows=100, time=10.0), "WATCH"),
        (seen(100, 10.0), ProbationBar(windows=100, time=10.0), "PASS"),
        (seen(errors=1), ProbationBar(), "FAIL"),
        (seen(errors=2), ProbationBar(errors=2), "PASS"),
        (seen(errors=3), ProbationBar(errors=2), "FAIL"),
        (seen(100, errors=1), ProbationBar(windows=100), "FAIL"),
        (seen(ms=100, before=10), ProbationBar(), "PASS"),
        (seen(ms=100, before=10), ProbationBar(latency_ratio=1.5), "FAIL"),
        (seen(ms=100, before=math.nan), ProbationBar(latency_ratio=1.5), "PASS"),
        (seen(ms=100, before=math.inf), ProbationBar(latency_ratio=1.5), "PASS"),
        (seen(ms=100, before=10, rows=ROWS_FOR_P99 - 1), ProbationBar(latency_ratio=1.5), "PASS"),
        (seen(ms=100, before=10, windows=1), ProbationBar(windows=9, latency_ratio=1.5), "FAIL"),
        (seen(ms=14, before=10), ProbationBar(latency_ratio=1.5), "PASS"),
        (seen(ms=18, before=10), ProbationBar(latency_ratio=1.5), "FAIL"),
        (seen(ms=1.0, before=0.1), ProbationBar(latency_ratio=1.5), "PASS"),  # within the slack
        (seen(ms=LATENCY_SLACK_MS + 1, before=0.1), ProbationBar(latency_ratio=1.5), "FAIL"),
    ],
)
def test_the_same_evidence_and_bar_give_the_same_verdict(evidence, bar, word):
    assert probation(evidence, bar).word == word


def test_a_fast_99_percent_does_not_fail_for_its_slowest_row():
    evidence = seen(ms=5, rows=990, before=10)
    evidence.latency.add(1000.0, 9)
    assert probation(evidence, ProbationBar(latency_ratio=1.5)).word == "PASS"
    evidence.latency.add(1000.0, 3)
    assert probation(evidence, ProbationBar(latency_ratio=1.5)).word == "FAIL"


def test_progress_is_that_of_the_slowest_demand():
    bar = ProbationBar(windows=100, time=10.0)
    assert probation(seen(50, 9.0), bar).progress == 0.5
    assert probation(seen(5000, 2.5), bar).progress == 0.25
    assert probation(seen(100, 10.0), bar).progress == 1.0


def test_a_failure_says_what_was_seen_and_what_was_demanded():
    assert probation(seen(errors=3), ProbationBar(errors=2)).why == "3 bad scores (at most 2): nan"
    why = probation(seen(ms=100, before=10), ProbationBar(latency_ratio=1.5)).why
    assert "before it was 10.0 ms (at most 1.5 times that)" in why
    assert why.startswith("p99 latency is 10")
