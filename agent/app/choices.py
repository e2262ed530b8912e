"""Which adapter stands behind each port, by the configuration.

Builds, and starts only what must run before the rest (the embedded broker).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

import agent
from agent.adapters.files import DiskRing
from agent.adapters.mqtt.bulk import MqttSource
from agent.adapters.mqtt.link import MqttLink
from agent.config import Config, Mqtt, Stream
from agent.core import wire
from agent.core.decoding import Decoder
from agent.core.errors import RefusedError, UnavailableError, UnfitError
from agent.core.packages import Package
from agent.core.streams import StreamSpec
from agent.core.topics import Topics
from agent.core.trust import Kind, UntrustedError
from agent.ports import (
    Clock,
    Faces,
    Fetcher,
    Journal,
    Link,
    Questions,
    Signer,
    Source,
    Store,
    Vault,
)
from agent.runtime.archive import Archive
from agent.runtime.chunked import ChunkedFetcher
from agent.runtime.intake import Intake
from agent.runtime.joining import Joining
from agent.runtime.lane import Lane
from agent.runtime.trusting import Trusting, Unanchored, Unsigned
from agent.runtime.wishes import Resolver

Told = Callable[[], None]
INFLIGHT_MOST = 65_535  # QoS 1 messages that MQTT 5 lets a broker have under way

logger = structlog.get_logger(__name__)


class LocalFaces(Faces, Protocol):
    """The local endpoint, as this room starts and stops it."""

    def start(self) -> None:
        """Listen.  Raises RefusedError where the address is taken."""
        ...

    def stop(self) -> None:
        """Listen no more.  Idempotent."""
        ...

    def questions_to(self, desk: Questions) -> None:
        """From now on `desk` answers what is asked."""
        ...

    def source(self, stream: Stream) -> Source:
        """What is posted to `stream`; before `start`."""
        ...


class SystemClock:
    """The `Clock` of this machine."""

    def monotonic(self) -> float:
        """Seconds that only ever rise."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
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


def fetcher(config: Config, link: Link, rooms: ExitStack, block_bytes_max: int) -> Fetcher:
    """Where packages come from, by the repository's URL; in chunks over `link` where it is MQTT."""
    url = config.repository.url
    if url.startswith("mqtt:"):
        block = min(block_bytes_max, config.mqtt.packet_bytes_max // 2)
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


def resolver(config: Config, journal: Journal, vault: Vault, clock: Clock) -> tuple[Resolver, str]:
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
    try:
        trusting = Trusting(
            root,
            journal,
            vault,
            clock,
            built_at=agent.__built__,
            device=config.device.id,
            groups=config.device.groups,
            grace_s=config.repository.expiry_grace,
        )
    except RefusedError as error:
        if isinstance(error, UntrustedError) and error.kind is Kind.CORRUPT:
            logger.error("trust damaged, nothing is installed", why=str(error))  # noqa: TRY400
            return Unanchored(str(error)), f"damaged: nothing is installed; {error}"
        raise RefusedError(f"{error}; see repository.root_file, {path}", error.code) from error
    return trusting, "tuf"


def archive(config: Config, journal: Journal, tell: Callable[..., None]) -> Archive:
    """Where receipts are kept, and what signs them; a device scores without its key, too."""
    signer: Signer | None = None
    unsigned = "device.key_file is not set"
    if config.device.key_file:
        from agent.adapters.device_key import DeviceKey

        try:
            signer = DeviceKey(Path(config.device.key_file))
        except (RefusedError, UnavailableError) as error:
            unsigned = str(error)
            logger.warning("receipts are not signed", why=unsigned)
    return Archive(journal, device=config.device.id, signer=signer, tell=tell, unsigned=unsigned)


def intake(stream: Stream) -> Intake:
    """A stream as the lane sees it."""
    spec = StreamSpec(
        name=stream.name,
        format=stream.format,
        key=stream.key,
        time=stream.time,
        fields=stream.fields,
        columns=stream.columns,
        units=stream.units,
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
        on_overload=stream.on_overload,
    )


def sources(config: Config, site: Broker, faces: LocalFaces) -> Iterator[tuple[Source, list[str]]]:
    """Every source, with the streams it feeds.

    Inputs of a module come with the control link: see `dialects`.

    Each MQTT stream has a connection of its own, so that one whose model is slow, or that is
    paused, holds up no other.
    """
    for stream in config.stream:
        if stream.source == "mqtt":
            # what is to be given up has to be here, not with the broker
            ahead = {} if stream.on_overload == "block" else {"inflight_max": INFLIGHT_MOST}
            source = MqttSource(
                site.mqtt.model_copy(update=ahead),
                client_id=f"{config.device.id}.{stream.name}",
                streams=[(stream.name, stream.topic, stream.qos)],
                leaving=[stream.topic] if stream.leaving else [],
                resends_plainly=site.resends_plainly,
            )
            yield source, [stream.name]
        elif stream.source == "file":
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
            yield faces.source(stream), [stream.name]


def joining(source: Source, names: Sequence[str], config: Config, lane: Lane) -> Source:
    """`source`; where its streams are shared with other agents, one that does not join too soon."""
    if not any(s.name in names and s.is_shared for s in config.stream):
        return source
    intakes = [lane.intakes[name] for name in names]

    def can_score() -> bool:
        return any(s.slot.seat is not None for i in intakes for s in i.scorings.values())

    return Joining(source, can_score)


def factory(config: Config, store: Store) -> tuple[dict[str, tuple[str, Package]], dict[str, str]]:
    """The packages that came with the device, by model, with the stream of each; and why others
    cannot be used.  One that cannot be read keeps nothing else from running: a device must start.
    """
    found, left_out = {}, {}
    for model in config.model:
        try:
            found[model.name] = (model.stream, store.adopt_folder(Path(model.path)))
        except (UnfitError, RefusedError, UnavailableError) as error:
            logger.error("factory model left out", model=model.name, why=str(error))  # noqa: TRY400
            left_out[model.name] = str(error)
    return found, left_out


def ring(config: Config, rooms: ExitStack) -> DiskRing:
    """What was scored lately.  After the database, which keeps a second agent off the store."""
    kept = DiskRing(Path(config.store.dir) / "ring", int(config.store.ring_mb * 2**20))
    rooms.callback(kept.close)
    return kept


def faces(config: Config) -> LocalFaces:
    """The local endpoint, not yet started."""
    from agent.adapters.web import WebFaces, read_token

    token = None
    if config.http.token_file:
        token = read_token(Path(config.http.token_file))
    return WebFaces(config.http, token=token)


def link(config: Config, site: Broker, topics: Topics, started: str) -> MqttLink:
    """The control connection, in the native words."""
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
