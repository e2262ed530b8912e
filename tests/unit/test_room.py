"""The room of a model: one session a version, however many ask for it at once."""

import asyncio

from agent.runtime.leaving import ANSWERS_S_MAX, last_answers
from tests.world.hours import quiet
from tests.world.plant import Plant, live


def test_two_that_want_one_version_at_once_get_one_session(tmp_path):
    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        package = plant.publish(2)
        plant.store.adopt(package)
        room = plant.models.rows["m"].works.room
        one, other = await asyncio.gather(
            room.seat(package.ref, background=True), room.seat(package.ref, background=False)
        )
        assert one is other
        assert plant.engine.open() == [1, 2]

    live(main, Plant(tmp_path))


def test_who_naps_is_woken_by_a_lost_worker(tmp_path):
    """[rollout-7.3]"""

    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        row, began = plant.models.rows["m"], plant.clock.monotonic()
        naps = [asyncio.create_task(row.works.room.nap(60.0)) for _ in range(2)]
        await quiet(1.0)
        plant.engine.session(1).die("signal 11")
        plant.lane._turn()
        await asyncio.gather(*naps)
        assert plant.clock.monotonic() - began < 2.0
        await row.works.room.nap(60.0)
        assert plant.clock.monotonic() - began > 60.0, "of an alarm that is past nobody wakes"

    live(main, Plant(tmp_path))


def underway(plant):
    """The seat that scores, with a batch that its session has taken and not answered."""
    seat = plant.models.rows["m"].works.room.scoring.slot.seat
    seat.session.quick = False
    plant.feed(1.0)
    plant.lane._turn()
    assert seat.session.taken
    return seat


def test_who_is_taken_away_may_end_what_it_has_under_way(tmp_path):
    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        room, seat = plant.models.rows["m"].works.room, underway(plant)
        waiting = asyncio.create_task(last_answers(room, seat, plant.clock))
        await quiet(0.5)
        assert not waiting.done()
        seat.session.answer()
        plant.lane._turn()
        await waiting
        assert seat not in room.scoring.leased()

    live(main, Plant(tmp_path))


def test_who_cannot_answer_is_not_waited_for(tmp_path):
    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        room, seat = plant.models.rows["m"].works.room, underway(plant)
        began = plant.clock.monotonic()
        await last_answers(room, seat, plant.clock)
        assert ANSWERS_S_MAX <= plant.clock.monotonic() - began < 2 * ANSWERS_S_MAX
        seat.evidence.hangs += 1
        began = plant.clock.monotonic()
        await last_answers(room, seat, plant.clock)
        assert plant.clock.monotonic() == began
        seat.session.answer()
        plant.lane._turn()

    live(main, Plant(tmp_path))
