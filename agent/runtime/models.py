"""Every model of the device: its driver, its work, its room.  One row each, made when wished."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random

import structlog

from agent.core.errors import MisfitError, RefusedError, UnavailableError, UnfitError
from agent.core.names import ModelRef
from agent.core.packages import Package, read
from agent.core.rollout import Condemned, Phase, Rollout, kept, loaded, step
from agent.core.topics import Topics
from agent.ports import Clock, Engine, Fetcher, Journal, Outbox, Ring, Store
from agent.runtime.accounts import Account
from agent.runtime.assessing import Assessor
from agent.runtime.driver import Driver
from agent.runtime.guard import Guard
from agent.runtime.healing import Healer
from agent.runtime.intake import Intake
from agent.runtime.lane import Lane
from agent.runtime.limits import Limits
from agent.runtime.past import Past
from agent.runtime.receipts import SwapTrace
from agent.runtime.room import Room
from agent.runtime.scoring import Scoring
from agent.runtime.shares import Shares
from agent.runtime.work import Works

logger = structlog.get_logger(__name__)

RESTORE_S_RETRY = 5.0


@dataclass(slots=True)
class Model:
    """One model: what it is on, and what runs it."""

    name: str
    stream: str
    driver: Driver
    works: Works
    scoring: Scoring
    guard: Guard
    trouble: str = ""  # why its active version could not be loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What every model needs of the rest of the agent."""

    lane: Lane
    engine: Engine
    store: Store
    fetcher: Fetcher
    journal: Journal
    outbox: Outbox
    clock: Clock
    topics: Topics
    random: Random
    run_s_max: float
    receipt_s: float
    ring: Ring
    shadow_share: float
    assessor: Assessor
    receipt: Callable[[str, SwapTrace], Awaitable[None]]
    degraded: Callable[[str, str], None]
    refused: Callable[[str, str], None]
    changed: Callable[[], None]
    factory: frozenset[ModelRef] = frozenset()  # came with the device: no repository has them


class Models:
    """Rows are added and never taken away while the agent runs."""

    def __init__(self, world: World, tasks: asyncio.TaskGroup) -> None:
        self.rows: dict[str, Model] = {}
        self.healer: Healer | None = None
        self._kept: dict[str, frozenset[ModelRef]] = {}  # as of the last step of each model
        self._world = world
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()

    async def reopen(self, waits_s: Mapping[str, float]) -> None:
        """After a start: every model that was there when the agent last ran, network or not.
        `waits_s`: see `open`, by model; 0 for others.
        """
        journal = self._world.journal
        for name in await asyncio.to_thread(journal.models):
            stream = await asyncio.to_thread(journal.load_document, f"stream:{name}")
            if stream is not None:
                try:
                    await self.open(name, stream.decode(), waits_s=waits_s.get(name, 0.0))
                except RefusedError as error:
                    logger.warning("model left alone", model=name, why=str(error))

    async def open(self, name: str, stream: str, *, waits_s: float = 0.0) -> Model:
        """The row of `name`, made and restored from the journal if it was not there.

        A new row that has no active version leaves readings with their source for up to `waits_s`
        seconds: the first version may be here by then, or turned out to be none.

        Raises:
            RefusedError: the stream is not there (404), or the model is on another one (409).
            UnavailableError: the disk said no; there is no such row then.
        """
        if (model := self.rows.get(name)) is not None:
            if model.stream != stream and model.driver.now != Rollout():
                why = f"{name} is on the stream {model.stream}; retire it, then move it to {stream}"
                raise RefusedError(why, 409)
            return model
        world = self._world
        intake = world.lane.intakes.get(stream)
        if intake is None:
            there = ", ".join(sorted(world.lane.intakes)) or "none"
            raise RefusedError(f"{name} wants the stream {stream!r}; this device has {there}", 404)
        # first: a disk that says no says so before there is anything to take back
        await asyncio.to_thread(world.journal.save_document, f"stream:{name}", stream.encode())
        scoring = await self._scoring(name, intake)
        room = Room(
            world.lane,
            intake=intake,
            scoring=scoring,
            engine=world.engine,
            store=world.store,
            clock=world.clock,
        )
        scoring.released = room.released
        works = Works(
            room,
            world.store,
            world.fetcher,
            world.clock,
            rollout=lambda: driver.now,
            receipt=lambda trace: world.receipt(name, trace),
            degraded=lambda why: world.degraded(name, why),
            changed=world.changed,
            receipt_s=world.receipt_s,
            past=Past(room, world.ring, world.journal, world.clock),
            shadow_share=world.shadow_share,
            assessor=world.assessor,
        )
        driver = Driver(
            name,
            works.by_phase(),
            world.journal,
            tidy=lambda rollout: self._tidy(name, room, rollout),
            refused=lambda why: world.refused(name, why),
            changed=world.changed,
            random=world.random,
        )
        guard = Guard(
            works,
            world.clock,
            rollout=lambda: driver.now,
            submit=driver.submit,
            degraded=lambda why: world.degraded(name, why),
        )
        model = self.rows[name] = Model(name, stream, driver, works, scoring, guard)
        try:
            for ref in kept(await driver.load()):  # so that what the store has lost can be fetched
                if (package := await asyncio.to_thread(known, world.journal, ref)) is not None:
                    works.packages[ref.digest] = package
        except UnavailableError:
            del self.rows[name]  # else nobody would ever run it
            raise
        self._tasks.create_task(self._run(model, waits_s), name=f"model {name}")
        return model

    async def _scoring(self, name: str, intake: Intake) -> Scoring:
        world, stream = self._world, intake.spec.name
        assert self.healer is not None
        stored = await asyncio.to_thread(world.outbox.accounts)
        raw = stored.get((stream, name))
        account, shares = Account(), Shares()
        if raw is not None:
            account = Account.restored(raw, redelivered=intake.redelivered)
            shares = Shares.restored(raw) if intake.redelivered else shares
        scoring = Scoring(
            model=name,
            stream=stream,
            topic=world.topics.scores(name),
            epoch=world.outbox.epoch(),
            keys=intake.decoder.keys,
            account=account,
            shares=shares,
            limits=Limits(
                on_overload=intake.on_overload,
                rows_max=intake.rows_max,
                wait_s=intake.wait_s,
                run_s_max=world.run_s_max,
                # a version is condemned before its batch is given up: a better one may score it
                tries_max=self.healer.deaths_max + 1,
            ),
            released=lambda _: None,
            lost=self._lost,
        )
        scoring.restoring = True
        carried = await asyncio.to_thread(world.outbox.carried, stream, name)

        def join() -> None:
            scoring.carrying.load(carried)
            intake.scorings[name] = scoring

        await asyncio.wrap_future(world.lane.call(join))
        return scoring

    async def _run(self, model: Model, waits_s: float) -> None:
        """Score again first; then whatever the rollout was about."""
        if waits_s and model.driver.now.active is None:
            self._tasks.create_task(self._let_in(model, waits_s), name=f"first {model.name}")
        else:
            await self._restore(model)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(model.guard.run(), name=f"guard {model.name}")
            await model.driver.run()

    async def _restore(self, model: Model) -> None:
        try:
            await model.works.restore(model.driver.now)
            model.trouble = ""
        except (UnfitError, MisfitError) as error:
            model.trouble = str(error)
            active = model.driver.now.active
            assert active is not None
            logger.error("cannot restore", model=str(active), why=str(error))  # noqa: TRY400
            await model.driver.submit(Condemned(active, f"does not load any more: {error}"))
        except UnavailableError as error:
            other = model.works.restoring.stands_in
            model.trouble = f"{other} stands in: {error}" if other else str(error)
            self._tasks.create_task(self._restore_later(model), name=f"restore {model.name}")
        # Not where this was cancelled: the lane may be gone, and would never answer.
        await self._let_in(model)
        self._world.changed()

    async def _let_in(self, model: Model, after_s: float = 0.0) -> None:
        await asyncio.sleep(after_s)
        if after_s and model.driver.now.active is not None:
            return  # which has let in already, and may have its own reasons to hold back now
        await model.works.room.on_lane(lambda: setattr(model.scoring, "restoring", False))

    async def _restore_later(self, model: Model) -> None:
        await asyncio.sleep(RESTORE_S_RETRY)
        if model.works.restoring.is_wanted:
            await self._restore(model)

    async def _tidy(self, name: str, room: Room, rollout: Rollout) -> None:
        if rollout.phase is Phase.PREFLIGHT:  # a second opinion takes memory that is needed now
            await room.on_lane(room.scoring.beside.end_shadow)
        await room.keep(loaded(rollout))
        if rollout.phase is Phase.STEADY and rollout.active is None and rollout.reason:
            await self._let_in(self.rows[name])
        if (model := self.rows[name]).works.made_way:
            self._tasks.create_task(self._restore(model), name=f"reinstate {name}")
        keep = self._world.factory.union(*(kept(m.driver.now) for m in self.rows.values()))
        await asyncio.to_thread(self._world.store.collect, sorted(keep | kept(rollout)))
        name, now = room.scoring.model, kept(rollout)
        left = self._kept.get(name, frozenset()) - now
        self._kept[name] = now
        releases = {ref.release for ref in left} - {ref.release for ref in now}
        if gone := [f"package:{name}:{release}" for release in sorted(releases)]:
            await asyncio.to_thread(self._world.journal.drop_documents, gone)

    def _lost(self, scoring: Scoring, seat: object, why: str) -> None:
        assert self.healer is not None
        self.healer.lost(scoring, seat, why)  # type: ignore[arg-type]
        self.rows[scoring.model].works.room.wake()

    def condemned(self, name: str, ref: ModelRef, why: str) -> bool:
        """From any thread: `ref` should serve no more.  Whether another is about to take over."""
        gives_way = self.gives_way(name, ref)
        driver = self.rows[name].driver
        asyncio.run_coroutine_threadsafe(driver.submit(Condemned(ref, why)), self._loop)
        return gives_way

    def gives_way(self, name: str, ref: ModelRef) -> bool:
        """From any thread: whether another version would take over from `ref`."""
        after, _ = step(self.rows[name].driver.now, Condemned(ref, ""))
        return after.phase is Phase.ROLLING_BACK

    async def close(self) -> None:
        """Give back every session; the lane has stopped."""
        for model in self.rows.values():
            model.works.clerk.finish()
            await model.works.room.close()


def known(journal: Journal, ref: ModelRef) -> Package | None:
    """The package of `ref`, if it was resolved before and is kept."""
    raw = journal.load_document(f"package:{ref.name}:{ref.release}")
    return read(json.loads(raw)) if raw else None
