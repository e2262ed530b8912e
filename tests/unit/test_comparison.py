"""What two versions said of the same windows: which rows agree, and what is held against whom."""

import math

import numpy as np
import pytest

from agent.core.comparison import Comparison
from agent.core.scores import ScoreColumns

NAN = math.nan


def said(*scores, label=None, alarm=None):
    return ScoreColumns(np.array(scores, np.float32), label, alarm)


def compared(ours, theirs, **tolerance):
    both = Comparison(**tolerance)
    return both, both.add(ours, theirs)


def test_only_our_own_broken_rows_are_errors_and_two_broken_ones_agree():
    """What no version can score is no fault of the one on trial."""
    both, errors = compared(said(1.0, NAN, 1.0, NAN), said(1.0, 1.0, NAN, NAN))
    assert (both.rows, both.agreed, errors) == (4, 2, 1)


def test_a_broken_score_agrees_with_no_finite_one_whatever_its_label():
    both, errors = compared(said(NAN, label=["ok"]), said(1.0, label=["ok"]))
    assert (both.agreed, errors) == (0, 1)


def test_only_rows_that_both_have_scored_are_samples_of_their_scores():
    both, _ = compared(said(1.0, NAN, 3.0), said(4.0, 5.0, NAN))
    assert both.ours.columns().tolist() == [[1.0]]
    assert both.theirs.columns().tolist() == [[4.0]]


@pytest.mark.parametrize(
    ("ours", "theirs", "agrees"),
    [
        (1000.9, 1000.0, True),  # within a thousandth of what the other said
        (1001.2, 1000.0, False),
        (-1000.9, -1000.0, True),
        (0.1005, 0.1, False),  # a thousandth of a small score is little
        (0.00009, 0.0, True),
        (0.00011, 0.0, False),
    ],
)
def test_scores_agree_within_the_tolerance_of_what_the_other_said(ours, theirs, agrees):
    both, _ = compared(said(ours), said(theirs), rtol=1e-3, atol=1e-4)
    assert both.agreed == agrees


def test_the_tolerance_is_of_the_version_it_is_held_against():
    """Else a version could agree by saying more."""
    both, _ = compared(said(10.0), said(1.0), rtol=0.9, atol=0.0)
    assert both.agreed == 0


def test_of_a_vector_every_part_has_to_agree():
    both, _ = compared(said([1.0, 2.0], [1.0, 2.0]), said([1.0, 2.0], [1.0, 3.0]))
    assert both.agreed == 1


def test_a_broken_part_of_a_vector_breaks_its_row():
    both, errors = compared(said([1.0, NAN]), said([1.0, 2.0]))
    assert (both.agreed, errors) == (0, 1)


def test_scores_of_unlike_width_never_agree():
    both, errors = compared(said([1.0, 2.0]), said([1.0]))
    assert (both.rows, both.agreed, errors) == (1, 0, 0)


def test_labels_decide_before_alarms_and_alarms_before_scores():
    label, alarm = {"label": ["ok"]}, {"alarm": [True]}
    other_label, other_alarm = {"label": ["worn"]}, {"alarm": [False]}
    assert compared(said(1.0, **label, **alarm), said(9.0, **label, **other_alarm))[0].agreed == 1
    assert compared(said(1.0, **label, **alarm), said(1.0, **other_label, **alarm))[0].agreed == 0
    assert compared(said(1.0, **alarm), said(9.0, **alarm))[0].agreed == 1
    assert compared(said(1.0, **alarm), said(1.0, **other_alarm))[0].agreed == 0


def test_what_only_one_of_them_says_is_not_what_they_are_compared_by():
    assert compared(said(1.0, label=["ok"]), said(9.0))[0].agreed == 0
    assert compared(said(1.0), said(1.0, alarm=[True]))[0].agreed == 1
