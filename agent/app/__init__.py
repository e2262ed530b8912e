"""The front door: the only room that knows every other.

choices   which adapter stands behind each port
body      introduces them to the runtime and keeps them together while they live
here      starts it all, and sees it out in order
"""

import asyncio
import contextlib
import signal
from contextlib import AsyncExitStack

import structlog

from agent.app.body import Body
from agent.config import Config
from agent.core.errors import RefusedError, UnavailableError, UnfitError
from agent.runtime.watchdog import end_with_any_thread

logger = structlog.get_logger(__name__)

STOP_S_MAX = 6.0  # for what is in flight to end; container runtimes kill after 10
FLUSH_S_MAX = 2.0  # for what waits to be published to go out
LOOK_S = 0.05


async def run(config: Config, stop: asyncio.Event) -> None:
    """The agent, until `stop` is set.

    Raises:
        RefusedError: it cannot start as configured; the text says why.
        UnavailableError: something it cannot start without is not there; the text says what.
        UnfitError: a model that came with the device is no package; the text says which.
        ExceptionGroup: something inside has failed: the process must end.
    """
    async with AsyncExitStack() as house:
        body = await house.enter_async_context(Body.built(config))
        living = asyncio.create_task(body.live(), name="agent")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({living, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not living.done():
            await _quiet(body)
            living.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await living


async def _quiet(body: Body) -> None:
    """Read no more, end what is in flight, and send what can be sent."""
    logger.info("stopping")
    if not await asyncio.to_thread(body.lane.stop, STOP_S_MAX):
        logger.warning("what was in flight did not end in time; it will come again")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_S_MAX):
            # the outbox has no word for "empty", and this is once in a life
            while body.outbox.depth()["records"] and not body.link.trouble():  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)


def main(config: Config) -> int:
    """Run until SIGTERM, SIGINT or SIGHUP; the exit status of the process."""
    try:
        end_with_any_thread()
        return asyncio.run(_until_told(config))
    except (RefusedError, UnavailableError, UnfitError) as error:
        logger.error("cannot start", why=str(error))  # noqa: TRY400  # the sentence says all
        return 1


async def _until_told(config: Config) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is None or signal.getsignal(number) is signal.SIG_IGN:  # nohup
            continue
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    await run(config, stop)
    return 0


__all__ = ["main", "run"]
