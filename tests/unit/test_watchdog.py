"""What ends the process when nothing else moves."""

import asyncio
import threading

from agent.runtime.watchdog import Watchdog
from tests.world.waiting import eventually


def ended(is_live, work, patience_s=0.1):
    """Whether the watchdog wanted the process to end while `work` ran in its loop."""
    end = threading.Event()

    async def main():
        dog = Watchdog(patience_s, is_live, end=end.set, look_s=0.01)
        task = asyncio.create_task(dog.run())
        await asyncio.to_thread(eventually, is_watching)
        await work(end)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    return end.is_set()


def is_watching():
    return any(thread.name == "watchdog" for thread in threading.enumerate())


async def a_while(end):
    await asyncio.to_thread(end.wait, 0.5)


async def standing_still(end):
    end.wait(5)


def test_an_agent_that_is_live_is_left_alone():
    assert not ended(lambda: True, a_while)


def test_one_that_is_not_live_is_ended():
    """[azure-6.1]"""
    assert ended(lambda: False, a_while)


def test_one_whose_loop_stands_still_is_ended_too():
    assert ended(lambda: True, standing_still)
