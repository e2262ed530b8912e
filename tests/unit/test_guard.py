"""What serves is doubted for as long as it serves, on a device in memory."""

import pytest

from agent.core.rollout import Phase
from agent.runtime import guard
from tests.unit.test_trials import SENSORS, feed, flow, negated
from tests.world.hours import quiet
from tests.world.plant import Plant, live

NAN = float("nan")
BARS = {
    "shadow": {"windows": 40, "agreement": 0.9, "score_distance": 0.2, "max": 60.0},
    "probation": {"windows": 240, "latency_ratio": 3.0},
}


@pytest.fixture
def plant(tmp_path):
    plant = Plant(tmp_path)
    for release in (1, 2):
        plant.publish(release)
    return plant


def waved(plant, number, each=1):
    """`each` readings of each sensor: the values come and go."""
    lines = (
        b'{"k": "%c", "v": %d}' % (ord(k), (n * 7 + i) % 20)
        for n in range(number * each, (number + 1) * each)
        for i, k in enumerate(SENSORS)
    )
    plant.source.put(*lines, arrived=plant.clock.monotonic())
    for _ in range(4):
        plant.lane._turn()


async def stream(plant, seconds, *, step_s=0.2, each=1):
    for number in range(round(seconds / step_s)):
        waved(plant, number, each)
        await quiet(step_s)


async def serving(plant, **bars):
    """Release 2 has survived its probation; release 1 was before it."""
    await plant.desire(m=1)
    await stream(plant, 1)
    await plant.desire(m={"release": 2, "rollout": bars}, seconds=2)
    await stream(plant, 8)
    assert plant.rollout().known_good.release == 2
    assert plant.rollout().previous.release == 1


async def went_back(plant):
    for _ in range(1000):
        if plant.rollout().active.release == 1:
            break
        plant.lane._turn()
        await quiet(0.05)
    now = plant.rollout()
    assert now.active.release == 1
    assert len(now.quarantined) == 1
    return now.reason


def opinions(plant):
    """How often release 1 was loaded again."""
    return len(plant.engine.made[1]) - 1


def test_a_bad_score_sends_the_stream_back(plant):
    """[rollout-7.1]"""

    async def main(plant):
        await serving(plant)
        plant.engine.session(2)._run = lambda inputs: [inputs[0][:, :1] * NAN]
        await stream(plant, 2)
        assert "failed while serving: " in await went_back(plant)
        assert "bad scores (at most 0): the score is not a finite number" in plant.rollout().reason

    live(main, plant)


@pytest.mark.parametrize("phase", ["shadow", "canary"])
def test_what_serves_is_guarded_while_another_version_is_on_trial(plant, phase):
    """[rollout-7.4]"""
    endless = {"windows": 10**6} | ({"max": 600.0} if phase == "shadow" else {"share": 0.5})

    async def main(plant):
        await serving(plant)
        plant.publish(3)
        await plant.desire(m={"release": 3, "rollout": {phase: endless}}, seconds=2)
        await stream(plant, 2)
        assert plant.rollout().phase is Phase(phase)
        plant.engine.session(2)._run = lambda inputs: [inputs[0][:, :1] * NAN]
        for _ in range(200):
            waved(plant, 1)
            await quiet(0.1)
            if plant.rollout().active.release == 1:
                break
        await stream(plant, 2)
        now = plant.rollout()
        assert now.active.release == 1
        assert now.candidate.release == 3, "it is tried once more"
        whys = {receipt["why"] for receipt in plant.receipts}
        assert any("m:2 failed while serving: " in why for why in whys)
        assert plant.models.rows["m"].scoring.account.counts().rejected.keys() <= {"run"}

    live(main, plant)


def test_a_second_opinion_ends_where_another_version_goes_on_trial(plant):
    """[rollout-7.4] It is the candidate that scores beside the active version then."""

    async def main(plant):
        await serving(plant, **BARS)
        slow(plant, 2, 50.0)
        beside = plant.models.rows["m"].scoring.beside
        for _ in range(200):
            await stream(plant, 0.2)
            if beside.shadow is not None:
                break
        assert beside.shadow.seat.ref.release == 1
        plant.publish(3)
        endless = {**BARS, "shadow": {"windows": 10**6, "max": 600.0}}
        await plant.desire(m={"release": 3, "rollout": endless}, seconds=2)
        await stream(plant, 3)
        assert plant.rollout().phase is Phase.SHADOW
        asked = opinions(plant)
        for _ in range(7):
            await stream(plant, 10)
            assert plant.rollout().phase is Phase.SHADOW
            assert plant.rollout().active.release == 2, "whether it is slow is asked afterwards"
            assert beside.shadow.seat.ref.release == 3
            assert plant.engine.open() == [2, 3]
        assert opinions(plant) == asked

    live(main, plant)


def test_memory_that_grows_sends_the_stream_back(plant):
    """[rollout-7.1]"""

    async def main(plant):
        await serving(plant)
        plant.engine.session(2).rss = 200 * 2**20
        await stream(plant, 3)
        assert "its memory grew" in await went_back(plant)

    live(main, plant)


def test_a_hang_sends_the_stream_back_and_the_version_before_is_at_hand_by_then(plant):
    """[rollout-7.1] [rollout-7.3]"""

    async def main(plant):
        await serving(plant)
        session = plant.engine.session(2)
        session.quick = False
        began = plant.clock.monotonic()
        waved(plant, 1)
        assert session.taken
        while not session.kills:
            plant.lane._turn()
            loaded = opinions(plant)
            await quiet(0.1)
        assert 1.9 <= plant.clock.monotonic() - began <= 2.3
        assert loaded == 1
        for _ in range(8):
            plant.lane._turn()
            await quiet(0.1)
        assert "a run did not end: it was ended after 2" in await went_back(plant)
        assert opinions(plant) == 1

    live(main, plant)


def test_a_run_that_ends_after_all_is_no_hang_and_nothing_stays_loaded_for_it_for_long(plant):
    """[rollout-7.3]"""

    async def main(plant):
        await serving(plant)
        session = plant.engine.session(2)
        session.quick = False
        waved(plant, 1)
        for _ in range(6):
            plant.lane._turn()
            await quiet(0.1)
        assert plant.engine.open() == [1, 2], "not later than at a quarter of the time, and a look"
        session.quick = True
        session.answer(10)
        await stream(plant, guard.BRACED_S - 1)
        assert plant.engine.open() == [1, 2], "one hiccup is seldom alone"
        await stream(plant, 3)
        assert plant.engine.open() == [2]
        assert plant.rollout().active.release == 2

    live(main, plant)


def test_where_there_is_no_version_before_it_serves_on_and_that_is_said_once(plant):
    """[rollout-7.1]"""

    async def main(plant):
        await plant.desire(m=1)
        await stream(plant, 2)
        plant.engine.session(1)._run = lambda inputs: [inputs[0][:, :1] * NAN]
        await stream(plant, 6)
        assert plant.rollout().active.release == 1
        broken = plant.models.rows["m"].guard.broken
        assert "bad scores" in broken
        assert 1 <= len([told for told in plant.degraded if "serves on" in told[1]]) <= 12
        plant.engine.session(1)._run = lambda inputs: [inputs[0][:, :1]]
        await stream(plant, 45)
        assert plant.models.rows["m"].guard.broken == ""

    live(main, plant)


def slow(plant, release, ms):
    """Runs of `release` take `ms`, as its worker tells it; the readings wait for that long."""
    session = plant.engine.session(release)
    answer = session.answer

    def late(jobs=1, *, error=""):
        plant.clock.forward(ms / 1000)
        answer(jobs, error=error)
        session._answers[-1] = type(session._answers[-1])(
            session._answers[-1].job, session._answers[-1].outputs, ms, error
        )

    session.answer = late


def test_what_grows_slow_is_doubted_and_taken_back_if_the_version_before_is_not_as_slow(plant):
    """[rollout-7.2]"""

    async def main(plant):
        await serving(plant, **BARS)
        slow(plant, 2, 50.0)
        await stream(plant, 10)
        assert plant.rollout().active.release == 2, "too slow for too short a while"
        await stream(plant, 25)
        assert "failed while serving: p99 latency is" in await went_back(plant)

    live(main, plant)


def test_what_has_grown_slow_is_not_let_off_because_the_second_opinion_was_heard_soon(plant):
    """[rollout-7.2] On a brisk stream that takes a second or two: how long it has been slow by
    then is not forgotten.
    """

    async def main(plant):
        await serving(plant, **BARS)
        slow(plant, 2, 50.0)
        await stream(plant, 30, each=20)
        assert "failed while serving: p99 latency is" in await went_back(plant)

    live(main, plant)


def test_what_a_busy_machine_does_to_both_is_no_versions_fault(plant):
    """[rollout-7.2]"""

    def dress(session):
        if session.ref.release == 1 and 1 in plant.engine.made:
            plant.engine.made[1].append(session)
            slow(plant, 1, 50.0)
            plant.engine.made[1].pop()

    async def main(plant):
        await serving(plant, **BARS)
        plant.engine.dress = dress
        slow(plant, 2, 50.0)
        await stream(plant, 60)
        assert opinions(plant) == 1
        assert plant.rollout().active.release == 2
        assert plant.rollout().quarantined == ()
        assert plant.engine.open() == [2]

    live(main, plant)


def test_scores_that_move_are_asked_about_and_taken_back_if_they_would_not_have(plant):
    """[rollout-7.2]"""

    async def main(plant):
        await serving(plant, **BARS)
        await stream(plant, guard.PERIOD_S_FIRST)
        plant.engine.session(2)._run = negated
        await stream(plant, 2 * guard.PERIOD_S_FIRST + 10)
        assert "failed while serving: " in await went_back(plant)
        assert "agree" in plant.rollout().reason

    live(main, plant)


def test_a_world_that_moves_is_asked_about_once_and_is_as_it_is(plant):
    """[rollout-7.2]"""

    async def main(plant):
        await serving(plant, **BARS)
        await stream(plant, guard.PERIOD_S_FIRST)
        for _ in range(200):
            feed(plant)  # one and the same value, from now on
            await quiet(0.25)
        assert opinions(plant) == 1
        assert plant.rollout().active.release == 2
        assert plant.engine.open() == [2]

    live(main, plant)


def test_where_no_second_opinion_can_be_had_it_is_said_and_the_version_serves_on(plant):
    """[rollout-7.2]"""

    async def main(plant):
        await serving(plant, **BARS)

        async def none(_, *, background=True):
            return None, f"there is no memory, {background}"

        plant.models.rows["m"].works.placing.beside = none
        slow(plant, 2, 50.0)
        await stream(plant, 40)
        assert plant.rollout().active.release == 2
        assert any("p99 latency is" in told[1] for told in plant.degraded)

    live(main, plant)


def test_a_whole_period_stands_and_no_shorter_one(plant):
    """[rollout-7.1]"""

    async def main(plant):
        await serving(plant)
        first = plant.ring.kept["s", "m"][0].seq
        await flow(plant, 2 * guard.PERIOD_S_FIRST, step_s=2.0)
        assert plant.ring.kept["s", "m"][0].seq == first
        plant.models.rows["m"].guard._period_s = guard.PERIOD_S  # as after five minutes
        await flow(plant, guard.PERIOD_S, step_s=10.0)
        assert plant.ring.kept["s", "m"][0].seq > first

    live(main, plant)
