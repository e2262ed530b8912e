"""The front door: builds the adapters, introduces them to the runtime, and sees them out in order.

The only file that knows every room.  It chooses; it does nothing itself.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

import agent
from agent.adapters.files import FileStore
from agent.adapters.mqtt.bulk import MqttSource
from agent.adapters.mqtt.link import MqttLink
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.journal import SqliteJournal
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.config import Config, Mqtt, Stream
from agent.core import wire
from agent.core.decoding import Decoder
from agent.core.errors import RefusedError, UnavailableError
from agent.core.packages import Package
from agent.core.streams import StreamSpec
from agent.core.topics import Topics
from agent.ports import Clock, Engine, Faces, Fetcher, Journal, Link, Source
from agent.runtime.chunked import ChunkedFetcher
from agent.runtime.commands import Commands
from agent.runtime.events import Events
from agent.runtime.healing import Healer
from agent.runtime.intake import Intake
from agent.runtime.lane import Lane
from agent.runtime.models import Models, World
from agent.runtime.receipts import SwapTrace
from agent.runtime.reporter import Reporter
from agent.runtime.router import Router
from agent.runtime.trusting import Trusting, Unanchored, Unsigned
from agent.runtime.uplink import Uplink
from agent.runtime.watchman import Watchman
from agent.runtime.wishes import Resolver, Wishes

logger = structlog.get_logger(__name__)

STOP_S_MAX = 8.0  # for what is in flight to end; container runtimes kill after 10
FLUSH_S_MAX = 2.0  # for what waits to be published to go out


class SystemClock:
    """The `Clock` of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, and whether it sends unacknowledged messages again without saying so."""

    mqtt: Mqtt
    resends_plainly: bool = False


def broker(config: Config, rooms: ExitStack) -> Broker:
    """The site's broker, or the embedded one, started.

    Raises:
        RefusedError, UnavailableError: the embedded one is not installed, or does not come up.
    """
    if config.mqtt.url != "embedded":
        return Broker(config.mqtt)
    from agent.adapters.embedded import EmbeddedBroker

    folder = Path(config.store.dir)
    folder.mkdir(parents=True, exist_ok=True)
    embedded = EmbeddedBroker(config.mqtt.embedded_bind, folder)
    embedded.start()
    rooms.callback(embedded.stop)
    url = embedded.url_of(config.mqtt.version)
    return Broker(config.mqtt.model_copy(update={"url": url}), resends_plainly=True)


def engine(config: Config) -> Engine:
    """Versions in worker processes, or in this one where the device is too small for that."""
    if config.engine.isolation == "inline":
        from agent.adapters.onnx import InlineEngine

        return InlineEngine()
    from agent.adapters.processes import Limits, ProcessEngine

    return ProcessEngine(Limits.of(config.engine))


def fetcher(config: Config, link: Link, rooms: ExitStack) -> Fetcher:
    """Where packages come from, by the repository's URL."""
    url = config.repository.url
    if url.startswith("mqtt:"):
        block = min(128 * 1024, config.mqtt.packet_bytes_max // 2)
        return ChunkedFetcher(
            link, root=config.mqtt.root, device=config.device.id, block_bytes=block
        )
    if url.startswith("file:"):
        from agent.adapters.folder import FolderFetcher, folder_of

        return FolderFetcher(folder_of(url))
    from agent.adapters.https import HttpsFetcher

    https = HttpsFetcher(url, ca_file=config.repository.ca_file)
    rooms.callback(https.close)
    return https


def resolver(config: Config, journal: Journal, clock: Clock) -> tuple[Resolver, str]:
    """Who says what may be installed, and what the faces say of it."""
    if config.repository.trust == "none":
        return Unsigned(), "none: unsigned packages are installed"
    if not config.repository.root_file:
        return Unanchored(), "no trust anchor: nothing is installed"
    path = Path(config.repository.root_file)
    try:
        root = path.read_bytes()
    except OSError as error:
        why = f"cannot read the trust anchor {path}: {error.strerror}; see repository.root_file"
        raise RefusedError(why) from error
    trusting = Trusting(
        root,
        journal,
        clock,
        built_at=agent.__built__,
        device=config.device.id,
        groups=config.device.groups,
    )
    return trusting, "tuf"


def intake(stream: Stream) -> Intake:
    """A stream as the lane sees it."""
    spec = StreamSpec(
        name=stream.name,
        format=stream.format,
        key=stream.key,
        time=stream.time,
        fields=stream.fields,
        columns=stream.columns,
        late_s=stream.late,
        time_s_max_ahead=stream.time_s_max_ahead,
        payload_bytes_max=stream.payload_bytes_max,
        keys_max=stream.keys_max,
    )
    redelivered = stream.source != "mqtt" or stream.qos > 0
    return Intake(
        spec,
        Decoder(spec, ()),
        stream.batch.rows_max,
        stream.batch.wait_ms / 1000.0,
        redelivered=redelivered,
    )


def sources(config: Config, site: Broker, faces: Faces) -> Iterator[tuple[Source, list[str]]]:
    """Every source, with the streams it feeds.  All MQTT streams share one connection."""
    mqtt = [s for s in config.stream if s.source == "mqtt"]
    if mqtt:
        wanted = [(s.name, s.topic, s.qos) for s in mqtt]
        source = MqttSource(
            site.mqtt,
            client_id=f"{config.device.id}-data",
            streams=wanted,
            resends_plainly=site.resends_plainly,
        )
        yield source, [s.name for s in mqtt]
    for stream in config.stream:
        if stream.source == "file":
            from agent.adapters.tail import TailSource

            header = None if not stream.columns else False
            bytes_max = stream.payload_bytes_max
            yield (
                TailSource(
                    stream.name,
                    Path(stream.path),
                    stream.format,
                    header=header,
                    line_bytes_max=bytes_max,
                ),
                [stream.name],
            )
        elif stream.source == "http":
            yield faces.source(stream), [stream.name]  # type: ignore[attr-defined]


def web(config: Config) -> Faces:
    """The local endpoint, not yet started."""
    from agent.adapters.web import WebFaces, read_token

    token = None
    if config.http.token_file:
        token = read_token(Path(config.http.token_file))
    return WebFaces(config.http, token=token)


def link(config: Config, site: Broker, topics: Topics, started: str) -> MqttLink:
    """The control connection."""
    groups = [topics.group_desired(group) for group in config.device.groups]
    online = wire.status(online=True, since=started, agent=agent.__version__)
    offline = wire.status(online=False)
    return MqttLink(
        site.mqtt,
        client_id=config.device.id,
        will=(topics.status, offline),
        on_connect=lambda: [(topics.status, online, True)],
        goodbye=(topics.status, offline),
        subscriptions=[topics.desired, *groups, topics.commands, topics.repo_data],
    )


async def run(config: Config, stop: asyncio.Event) -> None:
    """The agent, until `stop` is set.

    Raises:
        RefusedError: it cannot start as configured; the text says why.
        RuntimeError: something inside has failed; the process must end.
    """
    async with AsyncExitStack() as house:
        rooms = house.enter_context(ExitStack())
        live = await house.enter_async_context(_living(config, rooms))
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({live.body, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if live.body in done:
            live.body.result()  # it ends by itself only by failing
        await live.quiet()


@dataclass(slots=True)
class _Living:
    body: asyncio.Task[None]
    lane: Lane
    outbox: SqliteOutbox
    link: Link

    async def quiet(self) -> None:
        """Read no more, end what is in flight, and send what can be sent."""
        logger.info("stopping")
        if not await asyncio.to_thread(self.lane.stop, STOP_S_MAX - FLUSH_S_MAX):
            logger.warning("what was in flight did not end in time; it will come again")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S_MAX):
                while self.outbox.depth()["records"] and not self.link.trouble():
                    await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _living(config: Config, rooms: ExitStack) -> AsyncIterator[_Living]:
    clock = SystemClock()
    started = datetime.fromtimestamp(clock.wall(), UTC).isoformat(timespec="seconds")
    folder = Path(config.store.dir)
    database = Database(folder / "agent.db")
    rooms.callback(database.close)
    journal = SqliteJournal(database)
    outbox = SqliteOutbox(database, int(config.store.outbox_mb * 2**20))
    rooms.callback(outbox.close)
    store = FileStore(folder, int(config.store.models_mb * 2**20))
    trust, trust_told = resolver(config, journal, clock)
    site = broker(config, rooms)
    topics = Topics(config.mqtt.root, config.device.id)
    the_link = link(config, site, topics, started.replace("+00:00", "Z"))
    the_engine = engine(config)
    the_fetcher = fetcher(config, the_link, rooms)
    faces = await asyncio.to_thread(web, config)
    events = Events(topics, outbox, faces, clock)
    lane = Lane(clock, outbox)
    for stream in config.stream:
        lane.intakes[stream.name] = intake(stream)
    marks = outbox.marks()
    for source, names in sources(config, site, faces):
        for name in names:
            if name in marks:
                source.resume(marks[name])
        lane.add_source(source, names)
    factory: dict[str, tuple[str, Package]] = {}
    for model in config.model:
        package = await asyncio.to_thread(store.adopt_folder, Path(model.path))
        factory[model.name] = (model.stream, package)

    async def body() -> None:
        reporter: Reporter | None = None

        def changed() -> None:
            if reporter is not None:
                reporter.changed()

        def receipt(model: str, trace: SwapTrace) -> None:
            events.tell(trace.kind, model, trace.why, receipt=trace.document())
            changed()

        async with asyncio.TaskGroup() as tasks:
            dice = random.Random()  # noqa: S311  # of waiting times
            models = Models(
                World(
                    lane=lane,
                    engine=the_engine,
                    store=store,
                    fetcher=the_fetcher,
                    journal=journal,
                    outbox=outbox,
                    clock=clock,
                    topics=topics,
                    random=dice,
                    run_s_max=config.engine.run_s_max,
                    receipt_s=config.report.receipt,
                    receipt=receipt,
                    degraded=lambda model, why: events.tell("degraded", model, why),
                    changed=changed,
                ),
                tasks,
            )
            pool = rooms.enter_context(ThreadPoolExecutor(4, "heal"))
            models.healer = Healer(
                lane,
                pool,
                clock,
                deaths_max=config.engine.deaths_max,
                deaths_s=config.engine.deaths_s,
                condemned=models.condemned,
                changed=changed,
                random=dice,
            )
            rooms.callback(models.healer.stop)
            wishes = Wishes(
                models,
                journal,
                the_fetcher,
                trust,
                streams=[stream.name for stream in config.stream],
                factory=factory,
                refused=lambda model, why: events.tell("refusal", model, why),
                changed=changed,
                random=dice,
            )
            lane.start()
            try:
                await models.reopen()
                reporter = Reporter(
                    device=config.device.id,
                    groups=config.device.groups,
                    topics=topics,
                    models=models,
                    wishes=wishes,
                    lane=lane,
                    engine=the_engine,
                    outbox=outbox,
                    link=the_link,
                    faces=faces,
                    clock=clock,
                    interval_s=config.report.interval,
                    trust=trust_told,
                )
                faces.start()  # type: ignore[attr-defined]
                rooms.callback(faces.stop)  # type: ignore[attr-defined]
                watchman = Watchman(lane, outbox, events, clock, lambda: reporter.report)
                commands = Commands(
                    models,
                    wishes,
                    lane,
                    the_link,
                    journal,
                    clock,
                    topics,
                    lambda: reporter.report.document(),
                )
                router = Router(
                    the_link, topics, config.device.groups, the_fetcher, wishes, commands
                )
                await wishes.remember(list(config.device.groups))
                for work in (
                    the_link.run(),
                    reporter.run(),
                    wishes.run(),
                    router.run(tasks),
                    Uplink(outbox, the_link).run(),
                    watchman.run(),
                ):
                    tasks.create_task(work)
                logger.info("running", device=config.device.id, http=config.http.bind)
                await asyncio.Event().wait()
            finally:
                models.healer.stop()
                lane.stop(0.5)
                await models.close()

    task = asyncio.create_task(body(), name="agent")
    try:
        yield _Living(task, lane, outbox, the_link)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def main(config: Config) -> int:
    """Run until SIGTERM or SIGINT; the exit status of the process."""
    try:
        return asyncio.run(_until_told(config))
    except (RefusedError, UnavailableError) as error:
        logger.error("cannot start", why=str(error))  # noqa: TRY400  # the sentence says all
        return 1


async def _until_told(config: Config) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(name, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(name, lambda *_: loop.call_soon_threadsafe(stop.set))
    await run(config, stop)
    return 0


__all__ = ["main", "run"]
