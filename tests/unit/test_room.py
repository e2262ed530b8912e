"""The room of a model: one session a version, however many ask for it at once."""

import asyncio

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
