"""Evidence and receipts in words, whatever a device sends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.wording import evidence_words, receipt_lines, receipt_words

SHADOW = {
    "phase": "shadow",
    "release": 7,
    "windows": 120,
    "wanted": 200,
    "agreement": 0.9928,
    "score_distance": 0.031,
    "bars": {"agreement": 0.98, "score_distance": 0.1, "errors": 0, "latency_ratio": 1.5},
    "errors": 0,
    "saturated": None,
    "skipped": 0,
    "deaths": 0,
    "hangs": 0,
    "latency_ms": {"p50": 1.0, "p99": 2.0},
    "before_p99_ms": None,
    "rss_mb": 48.1,
    "seconds": 12.3,
    "verdict": "WATCH",
    "why": "",
}
RECEIPT = {
    "kind": "swap",
    "from": {"release": 6, "digest": "sha256:a"},
    "to": {"release": 7, "digest": "sha256:b"},
    "why": "",
    "complete": True,
    "gap": 0,
    "duplicates": 0,
    "pause_ms": 12.345,
    "p99_ms": {"before": 1.1, "during": 1.3, "after": 1.2},
    "rss_mb": {"before": 48.1, "after": 47.0},
    "evidence": [SHADOW | {"verdict": "PASS"}],
}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "shadow: 120 of 200 windows, 99.2 % agree, score distance 0.031 (≤ 0.1), 0 errors"),
        (
            {"verdict": "PASS", "agreement": None, "score_distance": None},
            "shadow: 120 of 200 windows, 0 errors; passed",
        ),
        (
            {
                "verdict": "FAIL",
                "agreement": 0.97999,
                "errors": 1,
                "why": "97.9 % agree,\nat least 98",
            },
            (
                "shadow: 120 of 200 windows, 97.9 % agree, score distance 0.031 (≤ 0.1), 1 error;"
                " failed: 97.9 % agree, at least 98"
            ),
        ),
        (
            {
                "phase": "probation",
                "agreement": None,
                "score_distance": None,
                "before_p99_ms": 1.4,
                "saturated": 0.02,
                "deaths": 1,
                "hangs": 2,
                "skipped": 3,
            },
            (
                "probation: 120 of 200 windows, 12.3 s, 0 errors, 2 % saturated, 3 skipped,"
                " 1 worker death, 2 hangs, p99 2 ms (≤ 1.5 × 1.4 ms before)"
            ),
        ),
    ],
)
def test_evidence_reads_as_a_sentence(more, words):
    assert evidence_words(SHADOW | more) == words


def test_agreement_is_never_rounded_up_to_perfect():
    assert "99.9 % agree" in evidence_words(SHADOW | {"agreement": 0.99999})
    assert "100 % agree" in evidence_words(SHADOW | {"agreement": 1.0})


def test_a_receipt_reads_as_a_sentence_with_a_line_for_each_phase():
    first, second = receipt_lines(RECEIPT)
    assert first == (
        "swap 6 → 7: no gap, no duplicates, pause 12.3 ms, p99 1.1 → 1.3 → 1.2 ms,"
        " memory 48.1 → 47 MB"
    )
    assert second.startswith("shadow: 120 of 200 windows")
    assert second.endswith("; passed")


def test_a_rollback_says_why_and_what_was_lost_and_what_is_not_yet_known():
    told = RECEIPT | {
        "kind": "rollback",
        "to": None,
        "why": "NaN\x1b[2J\n!",
        "gap": 1,
        "complete": False,
    }
    told |= {"p99_ms": {"before": None}, "pause_ms": None, "duplicates": 2}
    words = receipt_words(told)
    assert words.startswith("rollback 6 → none: 1 row lost, 2 duplicates, memory 48.1 → 47 MB; NaN")
    assert words.endswith("! (not yet complete)")
    assert "\n" not in words
    assert "\x1b" not in words


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**60), 10**60) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*SHADOW, *RECEIPT, "p99", "release", "after"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*SHADOW, *RECEIPT]), ANYTHING))
def test_a_document_of_any_shape_becomes_one_line_a_phase(document):
    for line in [evidence_words(document), *receipt_lines(document)]:
        assert line
        assert line.isprintable()
