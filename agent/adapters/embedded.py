"""A broker inside the product: rumqttd from the iotcore wheel, in a child process.

For the demo, for tests, and for a site that is one device.  It keeps all in memory (sessions,
retained and queued messages end with it), gives every client in, and bounds its queues by dropping
the oldest: in production use Mosquitto.  The child ends when its parent does.
"""

import contextlib
from pathlib import Path
from typing import Any

import structlog

from agent.core.errors import RefusedError, UnavailableError

SEGMENT_BYTES = 1024 * 1024  # of a topic's log; rumqttd's default of 100 MB is not for the edge
SEGMENTS = 16
INFLIGHT_MAX = 1000
CONNECTIONS_MAX = 256
START_S_MAX = 15.0

_CONF = """\
id = 0
[router]
id = 0
max_connections = {connections}
max_outgoing_packet_count = 200
max_segment_size = {segment}
max_segment_count = {segments}
{listeners}"""
_LISTENER = """\
[v{version}.1]
name = "v{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[v{version}.1.connections]
connection_timeout_ms = 10000
max_payload_size = {payload}
max_inflight_count = {inflight}
dynamic_filters = true
"""

log = structlog.get_logger(__name__)


class EmbeddedBroker:
    """One broker for this device: MQTT 5 at `bind`, MQTT 3.1.1 at the port after it.

    rumqttd speaks one version per port; both ports lead to the same topics and sessions.  It has
    100 QoS 1 messages under way to a client at most, whatever it is told.  When a connection comes
    back it sends unacknowledged messages again without DUP: give a source on it
    `resends_plainly=True`.

    Args:
        bind: host:port to listen on.
        folder: where its configuration is written.
        payload_bytes_max: the largest payload it passes on.

    Raises:
        RefusedError: the package for it is not installed.
    """

    def __init__(self, bind: str, folder: Path, *, payload_bytes_max: int = SEGMENT_BYTES) -> None:
        try:
            from iotcore import Broker  # noqa: PLC0415 - an extra: most devices do without
        except ImportError as error:
            msg = 'the embedded broker is not installed; pip install "edge-model-agent[embedded]"'
            raise RefusedError(msg) from error
        self._make = Broker
        self._broker: Any = None
        host, _, port = bind.rpartition(":")
        self._host, self._port = host, int(port)
        self._folder = folder
        self._payload_bytes_max = payload_bytes_max

    @property
    def url(self) -> str:
        """Where MQTT 5 clients find it; on this machine, whatever it listens on."""
        return self.url_of(5)

    def url_of(self, version: int) -> str:
        """Where clients that speak `version`, 5 or 4 (3.1.1), find it."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "") else self._host  # noqa: S104 - compared
        return f"mqtt://{host}:{self._port + (version != 5)}"

    def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises:
            UnavailableError: a port is taken, or it does not come up.
        """
        conf = self._folder / "broker.toml"
        listeners = [
            _LISTENER.format(
                version=version,
                host=self._host,
                port=self._port + (version != 5),
                payload=self._payload_bytes_max,
                inflight=INFLIGHT_MAX,
            )
            for version in (4, 5)
        ]
        conf.write_text(
            _CONF.format(
                connections=CONNECTIONS_MAX,
                segment=max(SEGMENT_BYTES, self._payload_bytes_max),
                segments=SEGMENTS,
                listeners="".join(listeners),
            ),
            encoding="utf-8",
        )
        try:
            broker = self._make(config_path=str(conf))
            broker.start(START_S_MAX)
        except (OSError, RuntimeError, ValueError) as error:
            where = f"{self._host}:{self._port} and :{self._port + 1}"
            raise UnavailableError(
                f"the embedded broker cannot listen on {where}: {error}; set mqtt.embedded_bind"
            ) from error
        self._broker = broker
        log.info("embedded_broker_up", mqtt5=self.url, mqtt311=self.url_of(4))

    @property
    def is_running(self) -> bool:
        """Whether its process lives; once started it should, and what it kept is gone if not."""
        return self._broker is not None and bool(self._broker.is_running)

    def stop(self) -> None:
        """End it, and with it all that it kept.  Idempotent."""
        broker, self._broker = self._broker, None
        if broker is not None:
            with contextlib.suppress(OSError):
                broker.stop()
