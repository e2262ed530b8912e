"""Trust is renewed although nothing new is desired, and what is doubtful about it is told."""

import asyncio
import random
import time
from types import SimpleNamespace

from agent.core.errors import UnavailableError
from agent.core.names import ModelRef
from agent.runtime.freshness import Freshness
from tests.world.tuf_memory import Memory
from tests.world.tuf_repository import DAY, NOW, TufRepository, at, package
from tests.world.waiting import eventually_async


class Shelf:
    """A fetcher of one bundle; without it, the weather."""

    def __init__(self) -> None:
        self.bundle = None
        self.asked = 0

    async def metadata(self):
        self.asked += 1
        if self.bundle is None:
            raise UnavailableError("nobody answers")
        return self.bundle


def _models(**active):
    rows = {
        name: SimpleNamespace(
            driver=SimpleNamespace(now=SimpleNamespace(active=ModelRef(name, release, "sha256:")))
        )
        for name, release in active.items()
    }
    return SimpleNamespace(rows=rows)


def test_signatures_are_renewed_although_nothing_new_is_desired_and_doubts_are_told():
    """[trust-3.8]"""
    repo = TufRepository("pump")
    repo.offer(package("pump", 1))
    memory = Memory(repo.root_file)
    memory.clock.monotonic = time.monotonic
    trusting = memory.trusting()
    trusting.resolve(repo.bundle(), "pump", 1)
    repo.timestamp.expires = at(90)
    repo.publish("timestamp")
    shelf, told, renewed = Shelf(), [], []
    freshness = Freshness(
        _models(pump=1),
        shelf,
        trusting,
        memory.clock,
        every_s=0.01,
        tell=lambda *event: told.append(event),
        renewed=lambda: renewed.append(True),
        random=random.Random(7),
    )

    async def main():
        work = asyncio.create_task(freshness.run())
        memory.clock.now = NOW + 35 * DAY
        await eventually_async(lambda: shelf.asked >= 2 and told)
        assert (told[0][0], told[0][1], told[0][2][:11]) == ("trust", "", "trust_stale")
        assert not renewed
        shelf.bundle = repo.bundle()
        await eventually_async(lambda: len(told) > 1)
        work.cancel()

    asyncio.run(main())
    assert freshness.doubts() == []
    assert told[1][0] == "recovered"
    assert len(told) == 2
    assert renewed
