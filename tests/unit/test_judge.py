"""The judge, by example: what evidence against what bars gives which verdict."""

import math

import numpy as np
import pytest

from agent.core.bars import Bars
from agent.core.comparison import ROWS_WORTH_A_LOOK
from agent.core.evidence import SLICE_S, Evidence
from agent.core.judge import (
    LATENCY_SLACK_MS,
    canary,
    doubt,
    moved,
    probation,
    serving,
    shadow,
    watch,
)
from agent.core.samples import Reservoir
from agent.core.scores import ScoreColumns

MB = 2**20


def seen(windows=0, seconds=0.0, **more):
    return Evidence(windows, seconds=seconds, why="nan", **more)


def bars(**parts):
    return Bars.model_validate(parts)


def slow(ms, before, *, slices=4, rows=200, run=None):
    """A version that took `ms` for a while, where the one before took `before`."""
    evidence = seen(before_p99_ms=before)
    for i in range(slices):
        evidence.now = 1000.0 + i * SLICE_S
        evidence.scored(rows // slices, ms, evidence.now)
    if run is not None:
        evidence.hold_against(1e-3, 1e-4)
        for _ in range(20):
            evidence.comparison.ran(*run, evidence.now)
    return evidence


def compared(agree, rows, *, batch=1, apart=0.0, seconds=0.0):
    """`agree` of `rows` have the same label; scores lie `apart`."""
    evidence = seen(rows, seconds)
    evidence.hold_against(1e-3, 1e-4)
    dice = np.random.default_rng(5)
    scores = dice.uniform(size=rows)
    labels = np.array(["ok"] * agree + ["worn"] * (rows - agree))
    labels = dice.permutation(labels) if batch == 1 else labels
    for start in range(0, rows, batch):
        part = slice(start, start + batch)
        ours = ScoreColumns(scores[part] + apart, labels[part].tolist())
        theirs = ScoreColumns(scores[part], ["ok"] * len(scores[part]))
        evidence.compared(ours, theirs)
    return evidence


@pytest.mark.parametrize(
    ("evidence", "bar", "word"),
    [
        (seen(), {}, "PASS"),
        (seen(99), {"windows": 100}, "WATCH"),
        (seen(100), {"windows": 100}, "PASS"),
        (seen(seconds=9.9), {"time": 10.0}, "WATCH"),
        (seen(seconds=10.0), {"time": 10.0}, "PASS"),
        (seen(1000, 1.0), {"windows": 100, "time": 10.0}, "WATCH"),
        (seen(1, 100.0), {"windows": 100, "time": 10.0}, "WATCH"),
        (seen(100, 10.0), {"windows": 100, "time": 10.0}, "PASS"),
        (seen(errors=1), {}, "FAIL"),
        (seen(errors=2), {"errors": 2}, "PASS"),
        (seen(errors=3), {"errors": 2}, "FAIL"),
        (seen(100, errors=1), {"windows": 100}, "FAIL"),
        (seen(100, hangs=1), {"windows": 100}, "FAIL"),
        (seen(100, deaths=2), {"windows": 100}, "PASS"),  # healed; too many are condemned elsewhere
        (seen(rss_first_bytes=50 * MB, rss_bytes=164 * MB), {}, "PASS"),
        (seen(rss_first_bytes=50 * MB, rss_bytes=165 * MB), {}, "FAIL"),
        (seen(rss_first_bytes=50 * MB, rss_bytes=165 * MB, memory_mb=100), {}, "PASS"),
        (seen(rss_bytes=165 * MB), {}, "PASS"),  # what it took at first is not known
        (slow(100, 10), {}, "PASS"),
        (slow(100, 10), {"latency_ratio": 1.5}, "FAIL"),
        (slow(100, math.nan), {"latency_ratio": 1.5}, "PASS"),
        (slow(100, 10, slices=2), {"latency_ratio": 1.5}, "PASS"),  # a hiccup
        (slow(100, 10, rows=16), {"latency_ratio": 1.5}, "PASS"),  # too few to say
        (slow(14, 10), {"latency_ratio": 1.5}, "PASS"),
        (slow(19, 10), {"latency_ratio": 1.5}, "FAIL"),
        (slow(1.0, 0.1), {"latency_ratio": 1.5}, "PASS"),  # within the slack
        (slow(LATENCY_SLACK_MS + 1, 0.1), {"latency_ratio": 1.5}, "FAIL"),
        (slow(100, 10, run=(5.0, 5.0)), {"latency_ratio": 1.5}, "PASS"),  # so is the other version
        (slow(100, 10, run=(9.0, 5.0)), {"latency_ratio": 1.5}, "FAIL"),
    ],
)
def test_the_same_evidence_and_bar_give_the_same_verdict(evidence, bar, word):
    """[rollout-5.8]"""
    assert probation(evidence, bars(probation=bar)).word == word


def test_a_slow_spell_that_has_passed_is_forgiven():
    evidence = slow(100, 10)
    evidence.now += SLICE_S
    evidence.scored(500, 5.0, evidence.now)
    assert probation(evidence, bars(probation={"latency_ratio": 1.5})).word == "PASS"


def test_progress_is_that_of_the_slowest_demand():
    demanded = bars(probation={"windows": 100, "time": 10.0})
    assert probation(seen(50, 9.0), demanded).progress == 0.5


# ---- shadow --------------------------------------------------------------------------------------

DEMANDING = {"windows": 200, "agreement": 0.98, "score_distance": 0.1, "max": 60.0}


@pytest.mark.parametrize(
    ("evidence", "word"),
    [
        (compared(100, 100), "WATCH"),
        (compared(200, 200), "PASS"),
        (compared(196, 200), "PASS"),
        (compared(194, 200), "WATCH"),  # below the bar, and not beyond chance: more is looked at
        (compared(194, 200, seconds=60.0), "FAIL"),
        (compared(180, 200), "FAIL"),
        (compared(20, ROWS_WORTH_A_LOOK - 1), "WATCH"),
        (compared(20, ROWS_WORTH_A_LOOK), "FAIL"),  # long before all windows were seen
        (compared(180, 200, batch=20), "WATCH"),  # one batch was wrong: that is one witness
        (compared(200, 200, apart=0.6), "FAIL"),
        (compared(200, 200, apart=0.15), "WATCH"),
        (compared(4000, 4000, apart=0.2), "FAIL"),
    ],
)
def test_a_shadow_fails_only_beyond_chance_and_passes_only_at_the_bar(evidence, word):
    """[rollout-5.4]"""
    assert shadow(evidence, bars(shadow=DEMANDING)).word == word


def test_what_goes_wrong_late_is_not_drowned_in_what_went_well():
    """[rollout-5.4]"""
    evidence = compared(60_000, 60_000, batch=100)
    for i in range(1000):
        label = "worn" if i % 5 == 0 else "ok"
        row = ScoreColumns(np.array([0.5]), [label])
        evidence.compared(row, ScoreColumns(np.array([0.5]), ["ok"]))
    assert evidence.comparison.agreement > 0.99
    assert shadow(evidence, bars(shadow={"windows": 10**6, "agreement": 0.98})).word == "FAIL"


def test_a_shadow_that_ran_out_of_time_is_no_proof_against_the_version():
    """[rollout-5.5]"""
    short = shadow(compared(50, 50, seconds=60.0), bars(shadow=DEMANDING))
    assert (short.word, short.proven) == ("FAIL", False)
    assert short.why == "not shown in time: 50 of 200 windows came in 60 s"
    assert shadow(compared(180, 200), bars(shadow=DEMANDING)).proven


def test_a_shadow_that_is_short_of_a_bar_is_never_all_done():
    verdict = shadow(compared(194, 200), bars(shadow=DEMANDING))
    assert verdict.progress < 1.0
    assert verdict.why == "97.0% of 200 windows agree (at least 98.0%)"


@pytest.mark.parametrize("judged", [shadow, canary, probation, serving])
def test_a_bad_score_a_hang_and_a_leak_break_every_trial(judged):
    """[rollout-5.7]"""
    demanded = bars(shadow=DEMANDING, canary={"share": 0.1, "windows": 10})
    assert judged(seen(errors=1), demanded).word == "FAIL"
    assert judged(seen(hangs=1), demanded).word == "FAIL"
    assert judged(seen(rss_first_bytes=MB, rss_bytes=500 * MB), demanded).word == "FAIL"
    assert judged(seen(), demanded).word == "WATCH" or judged is probation


def test_a_canary_passes_by_its_windows():
    demanded = bars(canary={"share": 0.1, "windows": 10})
    assert canary(seen(9), demanded).word == "WATCH"
    assert canary(seen(10), demanded).word == "PASS"


@pytest.mark.parametrize(("columns", "word"), [(1, "FAIL"), (8, "WATCH")])
def test_of_many_columns_one_is_apart_by_chance_more_often(columns, word):
    """[rollout-5.4] The first lies as far apart in both; the doubt is shared among all."""
    evidence = seen(1000)
    evidence.hold_against(1e-3, 1e-4)
    rows = np.repeat(np.linspace(0.0, 1.0, 1000)[:, None], columns, axis=1)
    moved_rows = rows.copy()
    moved_rows[:, 0] += 0.205
    same = ["ok"] * 1000
    evidence.compared(ScoreColumns(moved_rows, same), ScoreColumns(rows, same))
    demanded = bars(shadow={"windows": 2000, "score_distance": 0.1, "max": 60.0})
    assert shadow(evidence, demanded).word == word


def test_who_serves_is_held_against_another_only_where_that_is_demanded():
    demanded = {"windows": 100, "agreement": 0.98}
    assert watch(compared(20, 100), bars(shadow=demanded)).word == "FAIL"
    assert watch(compared(20, 100), bars(shadow=demanded | {"windows": 0})).word == "WATCH"


# ---- while it serves -----------------------------------------------------------------------------


def test_a_slow_version_that_serves_alone_is_doubted_and_not_condemned():
    """[rollout-7.2]"""
    demanded = bars(probation={"latency_ratio": 1.5})
    assert serving(slow(100, 10), demanded).word == "WATCH"
    assert "p99 latency is" in doubt(slow(100, 10), demanded)
    assert doubt(slow(11, 10), demanded) == ""


@pytest.mark.parametrize(("by", "told"), [(0.0, False), (0.1, False), (0.5, True)])
def test_scores_that_move_are_noticed_beyond_chance(by, told):
    dice = np.random.default_rng(3)
    before, now = Reservoir(1024), Reservoir(1024)
    before.add(dice.uniform(size=2000))
    now.add(dice.uniform(size=2000) + by)
    assert bool(moved(before, now, bars(shadow={"score_distance": 0.1}))) is told
    assert moved(before, now, bars()) == ""
    assert moved(before, Reservoir(), bars(shadow={"score_distance": 0.1})) == ""
