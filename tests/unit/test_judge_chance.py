"""How often the judge is wrong: many seeded rollouts of candidates whose true quality is known.

A rollout is played at the judge's door: correlated sensors, batches of uneven size, a machine that
stalls now and then, a look after every batch, through shadow and probation to the end.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from agent.core import judge
from agent.core.bars import Bars
from agent.core.evidence import Evidence
from agent.core.scores import ScoreColumns

pytestmark = pytest.mark.figures
SENSORS = 8
PERIOD_S = 0.25  # between batches
THRESHOLD = 0.8
BARS = Bars.model_validate(
    {
        "shadow": {"windows": 200, "agreement": 0.98, "score_distance": 0.1, "max": 600.0},
        "probation": {"windows": 1000, "time": 30.0, "latency_ratio": 1.5},
    }
)


@dataclass(frozen=True)
class Candidate:
    """`noise` is how far its logit strays from the active one's, `shift` by how much it is off,
    `wrong` the share of windows it decides at random, `slow` how much longer its runs take.
    """

    noise: float = 0.05
    shift: float = 0.0
    wrong: float = 0.0
    nan: float = 0.0
    slow: float = 1.0


class Plant:
    """Sensors whose levels wander, and a machine that is busy at times."""

    def __init__(self, seed):
        self.dice = np.random.default_rng(seed)
        self.level = self.dice.normal(size=SENSORS)
        self.stray = np.zeros(SENSORS)
        self.busy = 0
        self.now = 1000.0

    def batch(self, candidate):
        """Scores of both versions for one batch, and how long each took (ms)."""
        dice, rows = self.dice, int(self.dice.integers(1, 33))
        sensors = np.sort(dice.integers(0, SENSORS, rows))
        self.level = 0.97 * self.level + 0.25 * dice.normal(size=SENSORS)
        self.stray = 0.9 * self.stray + math.sqrt(1 - 0.81) * dice.normal(size=SENSORS)
        logit = 2.0 * self.level[sensors] + 0.3 * dice.normal(size=rows)
        mine = logit + candidate.noise * self.stray[sensors] + candidate.shift
        mine = np.where(dice.uniform(size=rows) < candidate.wrong, -mine + 2.8, mine)
        ours = np.where(dice.uniform(size=rows) < candidate.nan, np.nan, _squash(mine))
        if self.busy == 0 and dice.uniform() < 0.005:
            self.busy = int(dice.integers(4, 60))  # up to 15 s in which everything is slow
        self.busy = max(0, self.busy - 1)
        ms = 2.0 * dice.lognormal(0, 0.4) * (8.0 if self.busy else 1.0)
        self.now += PERIOD_S
        return _columns(ours), _columns(_squash(logit)), candidate.slow * ms, ms


def _squash(logit):
    return 1.0 / (1.0 + np.exp(-logit))


def _columns(score):
    with np.errstate(invalid="ignore"):
        return ScoreColumns(score, alarm=(score >= THRESHOLD).tolist())


def rollout(seed, candidate):
    """The verdict of a whole rollout, as (word, proven)."""
    plant = Plant(seed)
    shadow = _play(plant, candidate, judge.shadow, math.nan, live=False)
    if shadow.word != "PASS":
        return shadow
    return _play(plant, candidate, judge.probation, 6.0, live=True)


def _play(plant, candidate, judged, before_ms, *, live):
    seen, began = Evidence(before_p99_ms=before_ms, why="not a number"), plant.now
    seen.hold_against(1e-3, 1e-4)
    while True:
        ours, theirs, ms, other_ms = plant.batch(candidate)
        bad = seen.compared(ours, theirs)
        seen.errors += int(np.isnan(ours.score).sum()) if live else bad
        seen.comparison.ran(ms, other_ms, plant.now)
        seen.scored(len(ours.score), ms, plant.now)
        seen.now, seen.seconds = plant.now, plant.now - began
        verdict = judged(seen, BARS)
        if verdict.word != "WATCH":
            return verdict


def caught(candidate, runs, first=10_000):
    return sum(rollout(first + seed, candidate).word == "FAIL" for seed in range(runs))


def test_a_version_of_the_same_quality_is_not_failed_by_chance():
    """[rollout-5.10] At most 1 of 200."""
    false = caught(Candidate(), 200, first=0)
    print(f"same quality, failed by chance: {false} of 200")
    assert false <= 1


@pytest.mark.parametrize(
    ("what", "candidate"),
    [
        ("decides otherwise in 11 % of windows", Candidate(wrong=0.10)),
        ("scores lie 0.19 apart", Candidate(shift=1.0)),
        ("1 % of scores are no number", Candidate(nan=0.01)),
        ("runs take 4 times as long", Candidate(slow=4.0)),
    ],
)
def test_a_version_that_is_worse_by_a_stated_effect_is_caught(what, candidate):
    """[rollout-5.11] At least 99 of 100."""
    found = caught(candidate, 100)
    print(f"{what}, caught: {found} of 100")
    assert found >= 99
