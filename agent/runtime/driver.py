"""Runs one model's rollout machine: journals each step, does the work, feeds back how it ended.

It decides nothing; what there is to decide is in `core.rollout`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from random import Random

import structlog

from agent.core.errors import (
    DamagedError,
    MisfitError,
    UnavailableError,
    UnfitError,
    UnprovenError,
)
from agent.core.names import ModelRef
from agent.core.retry import delays
from agent.core.rollout import (
    Begin,
    Blame,
    Event,
    Failed,
    Passed,
    Phase,
    Rollout,
    recover,
    step,
    suspend,
)
from agent.ports import Journal

logger = structlog.get_logger(__name__)

Work = Callable[[ModelRef], Awaitable[None]]  # to return is to pass; to raise is to fail
RETRY_S_FIRST = 0.5
RETRY_S_MAX = 120.0
EVENTS_MAX = 64


class Driver:
    """Owns the one task that works on the one candidate of `model`.

    `tidy` is called after each step with the state before and after: sessions and files that are no
    longer wanted go there.  `refused` is told why a version was not taken; one that had taken the
    stream is rolled back instead.  `changed` is told that there is something new to report.
    """

    def __init__(
        self,
        model: str,
        work: Mapping[Phase, Work],
        journal: Journal,
        *,
        tidy: Callable[[Rollout], Awaitable[None]],
        refused: Callable[[str], None],
        changed: Callable[[], None],
        random: Random,
    ) -> None:
        self.model = model
        self.now = Rollout()
        self.weather = ""  # what the work in hand is waiting for
        self._work = work
        self._journal = journal
        self._tidy = tidy
        self._refused = refused
        self._changed = changed
        self._random = random
        self._inbox: asyncio.Queue[Event] = asyncio.Queue(EVENTS_MAX)
        self._task: asyncio.Task[None] | None = None

    async def submit(self, event: Event) -> None:
        """Tell the machine; waits only if it is far behind."""
        await self._inbox.put(event)

    async def load(self) -> Rollout:
        """What the journal has: call once, before `run`."""
        self.now = await asyncio.to_thread(self._journal.load, self.model)
        return self.now

    async def run(self) -> None:
        """Until cancelled; then journals that it was stopped in order."""
        async with asyncio.TaskGroup() as tasks:
            try:
                await self._enter(*recover(self.now), tasks)
                while True:
                    event = await self._inbox.get()
                    before = self.now
                    after, begin = step(before, event)
                    if after != before or begin is not None:
                        logger.info(
                            "rollout",
                            model=self.model,
                            was=str(before.phase),
                            now=str(after.phase),
                            candidate=str(after.candidate or ""),
                            why=after.reason,
                        )
                        await self._enter(after, begin, tasks)
            finally:
                self._cancel()
                with contextlib.suppress(UnavailableError):  # then the next start proves less
                    self._journal.save(self.model, suspend(self.now))

    async def _enter(self, after: Rollout, begin: Begin | None, tasks: asyncio.TaskGroup) -> None:
        moved = (after.phase, after.candidate) != (self.now.phase, self.now.candidate)
        if moved or begin is not None:
            self._cancel()
        await self._keep(after)
        if after.phase is Phase.STEADY and after.reason not in ("", self.now.reason):
            self._refused(after.reason)
        self.now = after
        try:
            await self._tidy(after)
        except UnavailableError as error:  # the next step tidies again
            logger.warning("not tidied", model=self.model, why=str(error))
        if begin is not None:
            self._task = tasks.create_task(self._attempt(begin), name=f"{begin.phase} {begin.ref}")
        self._changed()

    async def _keep(self, after: Rollout) -> None:
        """Journal `after`, however long the disk says no: nothing may run ahead of the journal."""
        weather = self.weather
        for delay_s in delays(RETRY_S_FIRST, RETRY_S_MAX, self._random):
            try:
                await asyncio.to_thread(self._journal.save, self.model, after)
            except UnavailableError as error:
                logger.warning("cannot journal", model=self.model, why=str(error))
                self.weather = str(error)
                self._changed()
                await asyncio.sleep(delay_s)
            else:
                self.weather = weather
                return

    def _cancel(self) -> None:
        self.weather = ""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _attempt(self, begin: Begin) -> None:
        for delay_s in delays(RETRY_S_FIRST, RETRY_S_MAX, self._random):
            try:
                await self._work[begin.phase](begin.ref)
            except (UnfitError, MisfitError, DamagedError, UnprovenError) as error:
                why = str(error).removeprefix(f"{begin.ref}: ")
                await self._inbox.put(Failed(begin.phase, begin.ref, why, _blame_of(error)))
                return
            except UnavailableError as error:
                logger.info("waiting", model=self.model, phase=str(begin.phase), why=str(error))
                self.weather = str(error)
                self._changed()
                await asyncio.sleep(delay_s)
            else:
                self.weather = ""
                await self._inbox.put(Passed(begin.phase, begin.ref))
                return


def _blame_of(error: UnfitError | MisfitError | DamagedError | UnprovenError) -> Blame:
    match error:
        case UnfitError():
            return Blame.VERDICT
        case MisfitError():
            return Blame.MISFIT
        case _:
            return Blame.WEATHER
