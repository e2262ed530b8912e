"""How an operator's command gets to the broker: URL, TLS and password, out of the same settings
that the device uses.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.config import ENV_PREFIX, Mqtt, load
from agent.core.errors import RefusedError, UnavailableError

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
CONNECT_S_MAX = 10.0
KEEPALIVE_S = 30
RECONNECT_S_MAX = 10


class _TidySocket(ssl.SSLSocket):
    """Closed when the handshake fails, which paho forgets."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def settings(url: str, root: str, environ: Mapping[str, str]) -> Mqtt:
    """The broker settings of an operator: `url` and `root` where given, else the environment's.

    Raises:
        RefusedError: no broker is named, or the settings cannot be taken.
    """
    prefix = f"{ENV_PREFIX}MQTT__"
    ours = {key: value for key, value in environ.items() if key.startswith(prefix)}
    if url:
        ours[f"{prefix}URL"] = url
    if root:
        ours[f"{prefix}ROOT"] = root
    if not ours.get(f"{prefix}URL"):
        raise RefusedError(f"no broker is named; pass --mqtt mqtt://HOST:1883 or set {prefix}URL")
    return load(None, ours).mqtt


def url_of(mqtt: Mqtt) -> str:
    """Where the broker is; an embedded one has MQTT 5 where it listens, 3.1.1 a port above."""
    if mqtt.url != "embedded":
        return mqtt.url
    host, _, port = mqtt.embedded_bind.rpartition(":")
    return f"mqtt://{host}:{int(port) + (mqtt.version != 5)}"


def client(mqtt: Mqtt, client_id: str) -> Client:
    """A paho client for this broker, not yet connected.

    Raises:
        RefusedError: a file that the settings name cannot be read.
    """
    parts = urlsplit(url_of(mqtt))
    made = Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=MQTTProtocolVersion.MQTTv5 if mqtt.version == 5 else MQTTProtocolVersion.MQTTv311,
        transport="websockets" if parts.scheme in ("ws", "wss") else "tcp",
    )
    made.connect_timeout = CONNECT_S_MAX
    made.reconnect_delay_set(1, RECONNECT_S_MAX)
    if parts.scheme in ("ws", "wss"):
        made.ws_set_options(path=parts.path or "/mqtt")
    if parts.scheme in ("mqtts", "wss"):
        made.tls_set_context(_tls(mqtt))
    if user := mqtt.username or parts.username:
        made.username_pw_set(user, _password(mqtt))
    return made


def connect(client: Client, mqtt: Mqtt, *, packet_bytes_max: int) -> None:
    """Open the connection; the broker's answer to it comes once the client's loop runs.

    Raises:
        UnavailableError: nobody is there, or nobody we trust.
    """
    url = url_of(mqtt)
    parts = urlsplit(url)
    properties: Properties | None = None
    if mqtt.version == 5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = packet_bytes_max
    try:
        client.connect(
            parts.hostname or "127.0.0.1",
            parts.port or PORTS[parts.scheme],
            keepalive=KEEPALIVE_S,
            properties=properties,
        )
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{url} cannot be reached: {_why(error)}") from error


def _why(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            advice = f"name the authority in {ENV_PREFIX}MQTT__CA_FILE"
            return f"its certificate is not trusted ({error.verify_message}); {advice}"
        case ConnectionRefusedError():
            return "nobody listens there; is the broker running, and is this its URL?"
        case OSError():
            return f"{error.strerror or error}; is this its URL?"
        case _:
            return str(error)


def _tls(mqtt: Mqtt) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=mqtt.ca_file or None)
        context.sslsocket_class = _TidySocket
        if mqtt.cert_file:
            context.load_cert_chain(mqtt.cert_file, mqtt.key_file)
    except OSError as error:
        raise RefusedError(f"the certificates for {mqtt.url} cannot be read: {error}") from error
    return context


def _password(mqtt: Mqtt) -> str | None:
    if not mqtt.password_file:
        return None
    try:
        return Path(mqtt.password_file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(
            f"the password file {mqtt.password_file} cannot be read: {error}"
        ) from error
