"""A rollout phase by phase, out of the reports that happened to come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.repository.chronicle import Chronicle
from tests.world.stand_in import model


def seen(phase, windows=3, release=7, verdict="WATCH"):
    return {"phase": phase, "release": release, "windows": windows, "errors": 0, "verdict": verdict}


def told(chronicle, **more):
    report = model(**more)
    return [(s.what, s.phase, s.words) for s in chronicle.see(report["phase"], report)]


def test_each_phase_is_entered_and_left_once_with_what_it_had_shown_in_the_end():
    it = Chronicle(7, {})
    assert told(it, phase="fetching") == [("entered", "fetching", "fetching")]
    assert told(it, phase="shadow", evidence=seen("shadow", 1)) == [("entered", "shadow", "shadow")]
    assert told(it, phase="shadow", evidence=seen("shadow", 2)) == []
    trail = [seen("shadow", 9, verdict="PASS")]
    assert told(it, phase="canary", trail=trail) == [
        ("left", "shadow", "shadow: 9 windows, 0 errors; passed"),
        ("entered", "canary", "canary"),
    ]
    assert told(it, phase="canary", trail=trail) == []


def test_phases_that_no_report_showed_are_told_by_the_trail():
    it = Chronicle(7, {})
    trail = [seen("shadow", 9, verdict="PASS"), seen("canary", 5, verdict="PASS")]
    steps = told(it, phase="probation", trail=trail)
    assert [(what, phase) for what, phase, _ in steps] == [
        ("left", "shadow"),
        ("left", "canary"),
        ("entered", "probation"),
    ]


def test_without_a_trail_the_last_that_was_seen_is_told():
    it = Chronicle(7, {})
    told(it, phase="shadow", evidence=seen("shadow", 2))
    assert told(it, phase="canary")[0] == ("left", "shadow", "shadow: 2 windows, 0 errors")


def test_evidence_of_another_release_or_of_an_earlier_try_is_not_ours():
    before = model(trail=[seen("shadow", 9, verdict="FAIL")], receipt={"number": 4})
    it = Chronicle(7, before)
    old = [*before["trail"], seen("canary", 1, release=6)]
    steps = told(it, phase="shadow", trail=old, evidence=seen("shadow", 1, release=6))
    assert steps == [("entered", "shadow", "shadow")]
    assert told(it, phase="canary", trail=old) == [("entered", "canary", "canary")]
    again = [seen("shadow", 8, verdict="FAIL")]
    assert told(it, phase="steady", trail=again)[0][:2] == ("left", "shadow")


@pytest.mark.parametrize(
    ("receipt", "ours"),
    [
        ({"number": 5, "kind": "swap", "from": {"release": 6}, "to": {"release": 7}}, True),
        ({"number": 5, "kind": "rollback", "from": {"release": 7}, "to": {"release": 6}}, True),
        ({"number": 4, "kind": "swap", "from": {"release": 6}, "to": {"release": 7}}, False),
        ({"number": 5, "kind": "swap", "from": None, "to": {"release": 6}}, False),
        (None, False),
    ],
)
def test_only_a_new_receipt_that_names_the_release_is_the_receipt(receipt, ours):
    it = Chronicle(7, model(receipt={"number": 4}))
    assert it.receipt(model(receipt=receipt)) == (receipt if ours else None)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["phase", "release", "number", "to", "words"]), inner)
    ),
    max_leaves=5,
)
MODEL = st.dictionaries(st.sampled_from(["phase", "evidence", "trail", "receipt"]), ANYTHING)


@given(MODEL, st.lists(MODEL, max_size=3))
def test_a_report_of_any_shape_is_survived(before, reports):
    it = Chronicle(7, before)
    for report in reports:
        for step in it.see(str(report.get("phase", "")), report):
            assert isinstance(step.words, str)
        it.receipt(report)
        it.evidence(report)
