"""Two-sample statistics on scores: a fair sample, a distance, and how much chance alone may do."""

import math
from itertools import accumulate
from math import comb

import numpy as np
import pytest

from agent.core.samples import (
    WIDTH_MAX,
    Reservoir,
    chance_of_so_few,
    distance,
    distance_error,
    stuck_share,
)


def sample(*rows, rows_max=4096):
    kept = Reservoir(rows_max)
    kept.add(np.array(rows, np.float64))
    return kept.columns()


# ---- the sample ----------------------------------------------------------------------------------


def test_what_fits_is_kept_whole():
    kept = Reservoir(8)
    kept.add(np.array([3.0, 1.0]))
    kept.add(np.array([2.0]))
    assert (len(kept), kept.seen) == (3, 3)
    assert kept.columns().ravel().tolist() == [1.0, 2.0, 3.0]


def test_late_rows_are_kept_as_likely_as_early_ones():
    """A quarter of what was said is a quarter of the sample, wherever it came."""
    kept = Reservoir(1024)
    for start in range(0, 65_536, 100):
        kept.add(np.arange(start, min(start + 100, 65_536)))
    rows = kept.columns().ravel()
    assert (len(kept), len(rows), kept.seen) == (1024, 1024, 65_536)
    quarters = np.histogram(rows, bins=4, range=(0, 65_536))[0]
    assert all(190 < n < 322 for n in quarters), quarters  # 256 ± 4.8 standard deviations


def test_a_sample_says_what_all_of_them_would():
    dice = np.random.default_rng(11)
    many, kept = dice.normal(size=50_000), Reservoir(1024)
    kept.add(many)
    whole = np.sort(many)[:, None]
    assert distance(kept.columns(), whole) < distance_error(1024, 50_000, 1e-4)


def test_only_the_leading_columns_of_a_wide_score_are_kept():
    assert sample(*np.ones((3, WIDTH_MAX + 5))).shape == (3, WIDTH_MAX)


# ---- the distance --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4), 0.0),
        ((1, 2, 3, 4), (5, 6, 7, 8), 1.0),
        ((5, 6, 7, 8), (1, 2, 3, 4), 1.0),
        ((1, 2, 3, 4), (3, 4, 5, 6), 0.5),
        ((0, 0, 0, 1), (0, 1, 1, 1), 0.5),  # of ties each counts
        ((0, 0), (0, 0, 0, 0), 0.0),
        ((1, 1, 1, 1), (1, 1, 2, 2), 0.5),
    ],
)
def test_the_distance_is_the_largest_difference_of_the_distribution_functions(one, other, apart):
    assert distance(sample(*one), sample(*other)) == apart
    assert distance(sample(*other), sample(*one)) == apart


def test_of_several_columns_the_one_that_is_furthest_apart_counts():
    one, other = sample([0, 0], [1, 1]), sample([0, 5], [1, 6])
    assert distance(one, other) == 1.0
    assert distance(one[:, ::-1], other[:, ::-1]) == 1.0


def test_where_nothing_was_said_there_is_no_distance():
    assert math.isnan(distance(sample(), sample(1)))
    assert math.isnan(distance(sample(1), sample()))


# ---- chance --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(100, 100), (100, 1000)])
def test_two_samples_of_one_distribution_lie_within_the_error_but_for_the_doubt(n, m):
    """Smirnov's bound holds, and is not much wider than it has to be."""
    dice = np.random.default_rng(7)
    apart = [
        distance(np.sort(dice.uniform(size=(n, 1)), 0), np.sort(dice.uniform(size=(m, 1)), 0))
        for _ in range(400)
    ]
    over = sum(d > distance_error(n, m, 0.05) for d in apart)
    assert 2 <= over <= 36  # 20 expected


def test_an_empty_sample_proves_nothing():
    assert distance_error(0, 10, 1e-4) == distance_error(10, 0, 1e-4) == 1.0


def test_a_small_sample_can_condemn_nobody():
    assert distance_error(2, 2, 1e-4) == 1.0


def test_the_doubt_is_shared_among_columns():
    one, eight = distance_error(100, 100, 1e-4), distance_error(100, 100, 1e-4, columns=8)
    assert eight == pytest.approx(distance_error(100, 100, 1e-4 / 8))
    assert eight > one


@pytest.mark.parametrize(("rows", "share"), [(1, 0.5), (10, 0.9), (60, 0.98), (200, 0.7)])
def test_the_chance_of_so_few_is_that_of_the_binomial(rows, share):
    exact = accumulate(
        comb(rows, k) * share**k * (1 - share) ** (rows - k) for k in range(rows + 1)
    )
    for agreed, chance in enumerate(exact):
        wanted = 1.0 if agreed >= rows * share else chance
        assert chance_of_so_few(agreed, rows, share) == pytest.approx(wanted, rel=1e-9)


def test_where_all_have_to_agree_one_that_does_not_is_enough():
    assert chance_of_so_few(99, 100, 1.0) == 0.0
    assert chance_of_so_few(100, 100, 1.0) == 1.0


@pytest.mark.parametrize(("agreed", "rows", "share"), [(0, 0, 0.9), (0, 10, 0.0)])
def test_where_nothing_is_demanded_or_seen_anything_is_likely(agreed, rows, share):
    assert chance_of_so_few(agreed, rows, share) == 1.0


@pytest.mark.parametrize(
    ("rows", "share"),
    [((1, 2, 3, 4), 0.25), ((5, 1, 5, 5), 0.75), ((2, 2), 1.0), ((2, 2, 1), 2 / 3)],
)
def test_a_dead_output_says_one_number_over_and_over(rows, share):
    assert stuck_share(sample(*rows)) == share


def test_of_nothing_said_nothing_is_stuck():
    assert math.isnan(stuck_share(sample()))
