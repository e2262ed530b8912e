"""Versions on trial, on a device in memory: what is seen, what is decided, what becomes of it."""

import asyncio
import math

import pytest

from agent.core.errors import UnavailableError, UnfitError
from agent.core.rollout import Phase
from tests.world.hours import quiet
from tests.world.plant import Plant, live

SHADOW = {"windows": 40, "agreement": 0.9, "max": 60.0}
CANARY = {"share": 0.5, "windows": 8}
PROBATION = {"windows": 40}
SENSORS = "abcdefgh"


@pytest.fixture
def plant(tmp_path):
    plant = Plant(tmp_path)
    for release in (1, 2):
        plant.publish(release)
    return plant


def feed(plant, count=1):
    """Each sensor sends `count` readings, and the lane turns until they are through."""
    for _ in range(count):
        plant.source.put(*(b'{"k": "%c", "v": %d}' % (ord(k), 1) for k in SENSORS))
        for _ in range(4):
            plant.lane._turn()


async def flow(plant, seconds=6.0, step_s=0.5):
    """The same, again and again while time passes."""
    for _ in range(round(seconds / step_s)):
        feed(plant)
        await quiet(step_s)


async def wish(plant, release=2, *, seconds=3.0, **bars):
    """Release 1 scores; then `release` is wished for, with `bars`."""
    await plant.desire(m=1)
    feed(plant, 3)
    await plant.desire(m={"release": release, "rollout": bars}, seconds=seconds)


def spoiled(plant, release, run):
    """Sessions of `release` do as `run` says."""

    def dress(session):
        if session.ref.release == release:
            session._run = run

    plant.engine.dress = dress


def negated(inputs):
    return [-inputs[0][:, :1]]


def said(plant):
    """The last evidence of each phase."""
    return {seen["phase"]: seen for seen in plant.models.rows["m"].works.clerk.trail}


def test_a_version_passes_shadow_canary_and_probation_on_what_it_shows(plant):
    """[rollout-1.1] [rollout-5.1]"""

    async def main(plant):
        await wish(plant, shadow=SHADOW, canary=CANARY, probation=PROBATION)
        assert plant.rollout().phase is Phase.SHADOW
        await flow(plant, 12)
        assert plant.rollout().known_good.release == 2
        seen = said(plant)
        assert [*seen] == ["shadow", "canary", "probation"]
        assert {one["verdict"] for one in seen.values()} == {"PASS"}
        assert [one["wanted"] for one in seen.values()] == [40, 8, 40]
        assert seen["shadow"]["agreement"] == 1.0
        assert seen["shadow"]["windows"] >= 40
        assert seen["shadow"]["bars"]["agreement"] == 0.9
        assert plant.models.rows["m"].scoring.beside.shadow is None

    live(main, plant)


def test_without_bars_nothing_is_tried(plant):
    async def main(plant):
        await wish(plant)
        await quiet(1)
        assert plant.rollout().known_good.release == 2
        assert said(plant) == {}

    live(main, plant)


def test_a_first_version_has_nothing_to_be_held_against_but_its_probation(plant):
    async def main(plant):
        bars = {"shadow": SHADOW, "canary": CANARY, "probation": PROBATION}
        await plant.desire(m={"release": 1, "rollout": bars}, seconds=3)
        await flow(plant)
        assert plant.rollout().known_good.release == 1
        assert [*said(plant)] == ["probation"]
        assert said(plant)["probation"]["agreement"] is None

    live(main, plant)


def test_what_decides_otherwise_in_shadow_is_condemned_and_nothing_goes_on_beside(plant):
    """[rollout-5.3] Where there is neither label nor threshold, scores agree within the tolerance
    of the golden samples.
    """
    spoiled(plant, 2, negated)

    async def main(plant):
        await wish(plant, shadow=SHADOW)
        await flow(plant)
        now = plant.rollout()
        assert (now.active.release, now.phase) == (1, Phase.STEADY)
        assert "failed shadow: 0.0% of" in now.reason
        assert len(now.quarantined) == 1
        assert plant.models.rows["m"].scoring.beside.shadow is None
        assert plant.engine.open() == [1]

    live(main, plant)


def test_what_is_not_shown_in_time_is_nobodys_fault(plant):
    """[rollout-5.5]"""

    async def main(plant):
        await wish(plant, shadow={**SHADOW, "max": 10.0})
        feed(plant)
        await quiet(11)
        now = plant.rollout()
        assert (now.active.release, now.phase) == (1, Phase.STEADY)
        assert "not shown in time" in now.reason
        assert now.quarantined == ()

    live(main, plant)


def test_a_canary_that_breaks_a_bar_is_taken_back(plant):
    """[rollout-5.6] [rollout-6.1]"""
    spoiled(plant, 2, lambda inputs: [inputs[0][:, :1] * math.nan])

    async def main(plant):
        await wish(plant, canary={**CANARY, "windows": 10**6})
        assert plant.rollout().phase is Phase.CANARY
        for _ in range(20):
            feed(plant)
            await quiet(0.5)
        now = plant.rollout()
        assert (now.active.release, now.phase) == (1, Phase.STEADY)
        assert "failed canary" in now.reason
        beside = plant.models.rows["m"].scoring.beside
        assert (beside.canary, beside.keep) == (None, None)
        assert plant.engine.open() == [1]

    live(main, plant)


def test_a_canary_that_is_not_wished_for_any_more_answers_for_nobody(plant):
    """[rollout-2.3] And what it had said is scored again."""

    async def main(plant):
        await wish(plant, canary={**CANARY, "windows": 10**6})
        assert plant.models.rows["m"].scoring.beside.canary is not None
        for _ in range(3):
            feed(plant)
            await quiet(0.5)
        await plant.desire(m=1, seconds=0.1)
        assert plant.rollout().phase is Phase.ROLLING_BACK
        for _ in range(20):
            feed(plant)
            await quiet(0.5)
        now = plant.rollout()
        assert (now.phase, now.active.release, now.quarantined) == (Phase.STEADY, 1, ())
        assert plant.models.rows["m"].scoring.beside.canary is None
        assert plant.engine.open() == [1]
        receipt = next(one for one in plant.receipts if one["kind"] == "rollback")
        assert receipt["rescored"]["rows"] > 0
        assert receipt["rescored"]["missing"] == 0
        assert "not wished for" in receipt["why"]

    live(main, plant)


def test_a_candidate_with_windows_of_its_own_is_no_canary(plant):
    """[rollout-5.6]"""
    plant.publish(3, more='[window]\nkind = "tumbling"\nsize = "2"')

    async def main(plant):
        await wish(plant, 3, canary=CANARY, probation=PROBATION)
        assert plant.rollout().phase is Phase.PROBATION
        assert "canary" not in said(plant)

    live(main, plant)


def test_probation_goes_on_alone_where_the_known_good_cannot_be_had(plant):
    """[rollout-5.8]"""

    async def main(plant):
        await plant.desire(m=1)
        feed(plant, 3)
        works = plant.models.rows["m"].works

        async def none(_):
            return None, "there is no memory for it"

        works.placing.beside = none
        bars = {"probation": PROBATION}
        await plant.desire(m={"release": 2, "rollout": bars}, seconds=3)
        await flow(plant)
        assert plant.rollout().known_good.release == 2
        assert said(plant)["probation"]["apart"] == "there is no memory for it"

    live(main, plant)


def test_on_probation_the_known_good_scores_beside_and_what_it_would_not_have_said_fails(plant):
    """[rollout-5.8]"""

    async def main(plant):
        await wish(plant, shadow=SHADOW, probation={"windows": 10**6})
        await flow(plant, 8)
        assert plant.rollout().phase is Phase.PROBATION
        assert plant.models.rows["m"].scoring.beside.shadow.seat.ref.release == 1
        plant.engine.session(2)._run = negated
        await flow(plant, 20)
        now = plant.rollout()
        assert (now.active.release, now.phase) == (1, Phase.STEADY)
        assert "failed probation" in now.reason
        assert "agree" in now.reason
        assert len(now.quarantined) == 1

    live(main, plant)


def test_memory_that_grows_is_seen_in_any_trial(plant):
    """[rollout-5.7]"""

    async def main(plant):
        await wish(plant, probation={"windows": 10**6})
        plant.engine.session(2).rss = 200 * 2**20
        await flow(plant, 2)
        assert "its memory grew" in plant.rollout().reason
        assert plant.rollout().active.release == 1

    live(main, plant)


def test_progress_is_that_of_the_trial_in_hand(plant):
    async def main(plant):
        await wish(plant, shadow={**SHADOW, "windows": 80})
        works = plant.models.rows["m"].works
        assert works.progress == 0.0
        feed(plant, 5)
        await quiet(0.5)
        feed(plant)
        await quiet(0.5)
        assert 0.4 <= works.progress <= 0.7

    live(main, plant)


HELD = {"shadow": {**SHADOW, "max": 10**6}, "canary": CANARY, "probation": PROBATION}


@pytest.mark.parametrize("phase", [*HELD])
def test_on_a_silent_stream_a_phase_waits_until_lower_bars_are_desired(plant, phase):
    """[rollout-5.12] And says how long it has."""

    async def main(plant):
        await wish(plant, **{phase: HELD[phase]})
        feed(plant)
        await quiet(60)
        now = plant.rollout()
        assert (now.phase, now.candidate.release) == (Phase(phase), 2)
        evidence = plant.state()["evidence"]
        assert evidence["phase"] == phase
        assert evidence["seconds"] >= 50
        assert 0 < evidence["windows"] < evidence["wanted"] == HELD[phase]["windows"]
        lower = {**HELD[phase], "windows": 1}
        await plant.desire(m={"release": 2, "rollout": {phase: lower}})
        now = plant.rollout()
        assert (now.phase, now.known_good.release) == (Phase.STEADY, 2)
        assert said(plant)[phase]["wanted"] == 1

    live(main, plant)


def test_the_bars_of_a_newer_wish_are_not_held_against_the_version_on_probation(plant):
    """[rollout-5.12] [rollout-2.2] It waits, and ends nothing."""
    plant.publish(3)

    async def main(plant):
        await wish(plant, probation=PROBATION)
        feed(plant)
        lower = {"probation": {"windows": 1}}
        await plant.desire(m={"release": 3, "rollout": lower}, seconds=60)
        assert plant.rollout().phase is Phase.PROBATION
        assert plant.rollout().candidate.release == 2
        assert "m:3 is wished for by now and waits" in plant.state()["why"]
        await plant.desire(m={"release": 2, "rollout": lower})
        assert plant.rollout().known_good.release == 2

    live(main, plant)


def test_the_weather_changes_nothing_about_the_trial(plant):
    """A second version that is not there is no second opinion, and no failure."""

    async def main(plant):
        await wish(plant, probation=PROBATION)
        works = plant.models.rows["m"].works
        plant.engine.fails.append(UnavailableError("no room"))
        other = plant.publish(3).ref
        assert (await works.placing.beside(other))[0] is None
        plant.engine.fails.clear()
        await flow(plant)
        assert plant.rollout().known_good.release == 2

    live(main, plant)


def test_a_canary_that_has_failed_answers_nothing_more_before_anything_else_is_done(plant):
    """[rollout-5.6]"""

    async def main(plant):
        await plant.desire(m=1)
        works = plant.models.rows["m"].works
        ref = next(ref for ref in plant.packages if ref.release == 2)
        works.wished(plant.packages[ref], {"canary": CANARY})
        await works.fetch(ref)
        await works.verify(ref)
        seat = await works.placing.seat(ref, background=True)
        seat.session._run = lambda inputs: [inputs[0][:, :1] * math.nan]
        trial = asyncio.create_task(works.trials.canary(seat))
        await flow(plant, 2.0)
        with pytest.raises(UnfitError, match="bad scores"):
            await trial
        assert works.room.scoring.beside.canary is None

    live(main, plant)
