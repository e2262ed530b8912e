"""The control link, in the words that the control plane speaks: native, azure or aws."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import agent
from agent.adapters.mqtt.link import MqttLink
from agent.adapters.mqtt.tributary import Tributary
from agent.app import choices
from agent.config import Config, Mqtt
from agent.core import wire
from agent.core.chunks import BLOCK_BYTES_MAX
from agent.core.errors import RefusedError
from agent.core.topics import Topics
from agent.ports import Clock, Link, Source

DEVELOPERS_CA = "EdgeModuleCACertificateFile"  # as Azure's own SDK has it
DEVELOPERS_STRING = "EdgeHubConnectionString"
KEEPALIVE_S_MIN = 30  # IoT Core takes no less
KEEPALIVE_S_MAX = 600  # edgeHub takes no more
PACKET_BYTES_MAX = 512 * 1024  # from the hub: a message, its topic, and room


@dataclass(frozen=True, slots=True)
class Control:
    """What stands behind `Link`, and what comes with it.

    inputs      sources that share the control connection, with the streams each feeds
    repository  a link to the site's broker for chunks, where the control link cannot carry them
    """

    link: Link
    inputs: Sequence[tuple[Source, list[str]]] = ()
    repository: Link | None = None
    block_bytes_max: int = BLOCK_BYTES_MAX


def control(
    config: Config, site: choices.Broker, topics: Topics, clock: Clock, started: str
) -> Control:
    """The link of `config.control`, not yet running.

    Raises:
        RefusedError: it cannot be made as configured.
    """
    if config.control == "azure":
        return _azure(config, site, topics, clock)
    if config.control == "aws":
        return _aws(config, topics, clock, started)
    return Control(choices.link(config, site, topics, started))


def _azure(config: Config, site: choices.Broker, topics: Topics, clock: Clock) -> Control:
    from agent.adapters.azure import HubLink, HubLogin, HubTopics, Identity

    ask = config.azure
    pem = _read(ask.ca_file or os.environ.get(DEVELOPERS_CA, ""), "azure.ca_file")
    if ask.connection_string_file:
        text = _read(ask.connection_string_file, "azure.connection_string_file")
        identity = Identity.of_connection_string(text)
    elif plain := os.environ.get(DEVELOPERS_STRING):
        identity = Identity.of_connection_string(plain)
    else:
        identity = Identity.of_module(os.environ)
    login = HubLogin(identity, life_s=ask.token, authorities_pem=pem, clock=clock.monotonic)
    outputs = HubTopics(identity)
    scheme, path = ("wss", "/$iothub/websocket") if ask.websockets else ("mqtts", "")
    settings = Mqtt(
        url=f"{scheme}://{identity.gateway}:{ask.port}{path}",
        username=identity.username,
        version=4,
        keepalive_s=min(config.mqtt.keepalive_s, KEEPALIVE_S_MAX),
        reconnect_s_max=config.mqtt.reconnect_s_max,
        packet_bytes_max=PACKET_BYTES_MAX,
    )
    taps = [
        Tributary(stream.name, outputs.input(stream.topic), named=outputs.named)
        for stream in config.stream
        if stream.source == "input"
    ]
    if taps and not identity.module:
        raise RefusedError("a device has no inputs, only modules have; see the stream's source")
    offline = wire.status(online=False)
    line = MqttLink(
        settings,
        client_id=identity.client_id,
        will=(outputs.output("status"), offline),
        goodbye=(outputs.output("status"), offline),
        subscriptions=outputs.subscriptions,
        login=login,
        retains=False,
        taps=taps,
    )
    link = HubLink(line, topics=topics, outputs=outputs, login=login, clock=clock)
    inputs = [(tap, [tap.stream]) for tap in taps]
    return Control(link, inputs, _branch(config, site, topics))


def _aws(config: Config, topics: Topics, clock: Clock, started: str) -> Control:
    from agent.adapters.aws import ThingLink, ThingTopics
    from agent.adapters.aws.files import BLOCK_BYTES_MAX as STREAM_BLOCK_BYTES_MAX

    ask = config.aws
    if not (ask.endpoint and ask.cert_file and ask.key_file):
        raise RefusedError("control is aws, and needs aws.endpoint, aws.cert_file and aws.key_file")
    name = ask.thing or config.device.id
    thing = ThingTopics(name, ask.shadow)
    settings = Mqtt(
        url=f"mqtts://{ask.endpoint}:{ask.port}",
        version=4,
        ca_file=ask.ca_file,
        cert_file=ask.cert_file,
        key_file=ask.key_file,
        keepalive_s=max(KEEPALIVE_S_MIN, config.mqtt.keepalive_s),
        reconnect_s_max=config.mqtt.reconnect_s_max,
        packet_bytes_max=PACKET_BYTES_MAX,
    )
    online = wire.status(online=True, since=started, agent=agent.__version__)
    offline = wire.status(online=False)
    line = MqttLink(
        settings,
        client_id=name,
        will=(topics.status, offline),
        on_connect=lambda: [(topics.status, online, False)],
        goodbye=(topics.status, offline),
        subscriptions=[*thing.subscriptions, topics.commands],
        retains=False,
    )
    link = ThingLink(line, topics=topics, thing=thing, clock=clock)
    return Control(link, block_bytes_max=STREAM_BLOCK_BYTES_MAX)


def _branch(config: Config, site: choices.Broker, topics: Topics) -> Link | None:
    """Chunks by the site's broker, if packages come over MQTT."""
    if not config.repository.url.startswith("mqtt:"):
        return None
    name = f"{config.device.id}.repository"
    return MqttLink(site.mqtt, client_id=name, subscriptions=[topics.repo_data])


def _read(path: str, key: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"cannot read {key} {path}: {error}") from error
