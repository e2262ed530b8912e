"""The room of a model: one session a version, however many ask for it at once."""

import asyncio

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
