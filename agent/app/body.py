"""Introduces the adapters to the runtime, and keeps them together while they live."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import structlog

from agent.adapters.files import FileStore
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.app import choices, dialects, engines, memory, roster
from agent.config import Config
from agent.core.packages import Package
from agent.core.topics import Topics
from agent.ports import Engine, Fetcher, Journal, Link, Ring
from agent.runtime.branch import Branch
from agent.runtime.certificates import Certificates
from agent.runtime.chunked import ChunkedFetcher
from agent.runtime.climbing import Climber
from agent.runtime.commands import Commands
from agent.runtime.desk import Desk
from agent.runtime.events import Events
from agent.runtime.freshness import Freshness
from agent.runtime.lane import Lane
from agent.runtime.models import Models
from agent.runtime.proving import Prover
from agent.runtime.reporter import Reporter
from agent.runtime.router import Router
from agent.runtime.uplink import Uplink
from agent.runtime.watchdog import Watchdog
from agent.runtime.watchman import Watchman
from agent.runtime.wishes import Resolver, Wishes

logger = structlog.get_logger(__name__)

LANE_STOP_S = 0.5  # where it was not stopped in order before


@dataclass(slots=True, kw_only=True)
class Body:
    """Everything built and nothing moving, until `live`."""

    config: Config
    clock: choices.SystemClock
    topics: Topics
    journal: Journal
    outbox: SqliteOutbox
    store: FileStore
    link: Link
    repository: Link | None
    engine: Engine
    fetcher: Fetcher
    resolver: Resolver
    trust: str
    faces: choices.LocalFaces
    lane: Lane
    ring: Ring
    factory: dict[str, tuple[str, Package]]
    left_out: dict[str, str]
    rooms: ExitStack

    @classmethod
    @asynccontextmanager
    async def built(cls, config: Config) -> AsyncIterator[Self]:
        """Build it all; what was opened is closed again on the way out.

        Raises:
            RefusedError, UnavailableError: it cannot be built as configured.
            UnfitError: a model that came with the device is no package.
        """
        with ExitStack() as rooms:
            yield await cls._build(config, rooms)

    @classmethod
    async def _build(cls, config: Config, rooms: ExitStack) -> Self:
        clock = choices.SystemClock()
        journal, outbox, vault = memory.opened(config, clock, rooms)
        resolver, trust = choices.resolver(config, journal, vault, clock)
        site = choices.broker(config, rooms)
        topics = Topics(config.mqtt.root, config.device.id)
        started = datetime.fromtimestamp(clock.wall(), UTC).isoformat(timespec="seconds")
        started = started.replace("+00:00", "Z")
        control = dialects.control(config, site, topics, clock, started)
        behind = control.repository or control.link
        faces = await asyncio.to_thread(choices.faces, config)
        lane = Lane(clock, outbox)
        for stream in config.stream:
            lane.intakes[stream.name] = choices.intake(stream)
        marks = outbox.marks()
        for source, names in (*choices.sources(config, site, faces), *control.inputs):
            for name in names:
                if name in marks:
                    source.resume(marks[name])
            lane.add_source(choices.joining(source, names, config, lane), names)
        ring = choices.ring(config, rooms)
        store = FileStore(Path(config.store.dir), int(config.store.models_mb * 2**20))
        factory, left_out = await asyncio.to_thread(choices.factory, config, store)
        return cls(
            config=config,
            clock=clock,
            topics=topics,
            journal=journal,
            outbox=outbox,
            store=store,
            link=control.link,
            repository=control.repository,
            engine=engines.engine(config, journal),
            fetcher=choices.fetcher(config, behind, rooms, control.block_bytes_max),
            resolver=resolver,
            trust=trust,
            faces=faces,
            lane=lane,
            ring=ring,
            factory=factory,
            left_out=left_out,
            rooms=rooms,
        )

    async def live(self) -> None:
        """Until cancelled.

        Raises:
            RefusedError: the local endpoint cannot listen where it should.
            ExceptionGroup: something inside has failed.
        """
        self.faces.start()
        self.rooms.callback(self.faces.stop)
        async with asyncio.TaskGroup() as tasks:
            await self._live(tasks)

    async def _live(self, tasks: asyncio.TaskGroup) -> None:
        config, dice = self.config, random.Random()  # noqa: S311  # of waiting times
        events = Events(self.topics, self.outbox, self.faces, self.clock)
        if self.outbox.found:
            events.tell("degraded", "", self.outbox.found)
        news = asyncio.Event()
        loop = asyncio.get_running_loop()

        def changed() -> None:
            loop.call_soon_threadsafe(news.set)

        archive = choices.archive(config, self.journal, events.tell)
        await archive.reopen()
        models = roster.models(
            self, tasks, events=events, archive=archive, changed=changed, dice=dice
        )
        wishes = Wishes(
            models,
            self.journal,
            self.fetcher,
            self.resolver,
            streams=[stream.name for stream in config.stream],
            factory=self.factory,
            refused=lambda model, why: events.tell("refusal", model, why),
            changed=changed,
            random=dice,
        )
        wishes.refusals.update(self.left_out)
        prover = Prover(models, self.clock, config.engine.golden_s)
        climber = Climber(
            models,
            self.clock,
            every_s=config.accelerators.climb,
            here=self.engine.providers,
            tell=events.tell,
        )
        freshness = Freshness(
            models,
            self.fetcher,
            self.resolver,
            self.clock,
            every_s=config.repository.refresh,
            tell=events.tell,
            renewed=wishes.renew,  # what was refused for its age may be taken now
            random=dice,
        )
        certificates = Certificates(self.lane, self.journal)
        await asyncio.to_thread(certificates.recall)
        self.lane.reads = False  # not before it is known which models there are to read for
        self.lane.start()
        try:
            await wishes.remember(list(config.device.groups))
            await asyncio.wrap_future(self.lane.call(self.lane.read))
            uplink = Uplink(self.outbox, self.link, events.gap)
            reporter = Reporter(
                device=config.device.id,
                groups=config.device.groups,
                topics=self.topics,
                models=models,
                wishes=wishes,
                prover=prover,
                lane=self.lane,
                engine=self.engine,
                outbox=self.outbox,
                link=self.link,
                faces=self.faces,
                clock=self.clock,
                interval_s=config.report.interval,
                trust=self.trust,
                archive=archive,
                doubts=freshness.doubts,
                unheard=lambda: uplink.unheard,
                news=news,
            )
            commands = Commands(
                models=models,
                wishes=wishes,
                lane=self.lane,
                desk=self._desk(models),
                link=self.link,
                journal=self.journal,
                clock=self.clock,
                topics=self.topics,
                state=reporter.document,
                receipts=archive.envelopes,
            )
            router = Router(
                self.link,
                topics=self.topics,
                groups=config.device.groups,
                fetcher=self.fetcher,
                wishes=wishes,
                commands=commands,
            )
            watchman = Watchman(self.lane, self.outbox, events, self.clock, lambda: reporter.report)
            works = (self.link, reporter, wishes, uplink, watchman, prover, climber)
            running = [tasks.create_task(work.run()) for work in works]
            running.append(tasks.create_task(router.run(tasks)))
            if self.repository is not None and isinstance(self.fetcher, ChunkedFetcher):
                branch = Branch(self.repository, self.fetcher)
                running.append(tasks.create_task(branch.run()))
            if certificates.are_kept:
                running.append(tasks.create_task(certificates.run()))
            if config.report.dead:
                watchdog = Watchdog(config.report.dead, lambda: reporter.report.live)
                running.append(tasks.create_task(watchdog.run()))
            if config.repository.trust == "tuf":
                running.append(tasks.create_task(freshness.run()))
            logger.info("running", device=config.device.id, http=config.http.bind)
            await asyncio.gather(*running)
        finally:
            if self.lane.stop(LANE_STOP_S):
                await certificates.close()
            await models.close()
            await archive.close()

    def _desk(self, models: Models) -> Desk:
        desk = Desk(models, self.lane, self.clock)
        self.faces.questions_to(desk)
        return desk
