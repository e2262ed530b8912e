"""Where the broker is and how to reach it: address, TLS, credentials, session, as paho wants them.

Everything that is the same for the control link and the data connection.  Files with secrets and
certificates are read at every connect, so that they can be rotated under a running agent.  Blocks
while it connects: for threads that may wait.
"""

import contextlib
import random
import socket
import ssl
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import structlog
from paho.mqtt.client import Client, WebsocketConnectionError
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.adapters.mqtt.redial import Redial
from agent.config import Mqtt
from agent.core.errors import RefusedError, UnavailableError
from agent.ports import Login

SESSION_S = 7 * 86400  # how long an MQTT 5 broker keeps our session while we are away
CONNECT_S_MAX = 5.0  # of TCP and TLS, each
CONNACK_S_MAX = 10.0
SECRET_BYTES_MAX = 64 * 1024
KEEPALIVE_SHARE = 0.75  # paho may need two intervals to notice silence: 1.5 × keepalive_s in all
_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

AnyClient = TypeVar("AnyClient", bound=Client)

log = structlog.get_logger(__name__)


class Options:
    """One client's way to the broker.

    Args:
        settings: the `[mqtt]` section; `url` must be a real address, not "embedded".
        client_id: the MQTT client id, also the name of the session that the broker keeps.
        receive_max: QoS 1 messages that the broker may have under way to us (MQTT 5 only).
        takes_any: the broker is not told of `packet_bytes_max` (over websockets it is: a frame
            cannot be passed over in pieces).
        will: topic and payload that the broker publishes, retained, when we are gone.
        login: asked for password and authorities instead of the files in `settings`.
        retains: whether the broker keeps retained messages; where not, the will asks for none.

    Raises:
        RefusedError: the address is none.
    """

    def __init__(
        self,
        settings: Mqtt,
        client_id: str,
        *,
        receive_max: int,
        will: tuple[str, bytes] | None = None,
        takes_any: bool = False,
        login: Login | None = None,
        retains: bool = True,
    ) -> None:
        parts = urlsplit(settings.url)
        if parts.scheme not in _PORTS or not parts.hostname:
            msg = f"{settings.url!r} is no broker to connect to; write mqtt://host:1883 or mqtts://"
            raise RefusedError(msg)
        self.client_id = client_id
        self.host = parts.hostname
        self.port = parts.port or _PORTS[parts.scheme]
        self.is_v5 = settings.version == 5
        self.packet_bytes_max = settings.packet_bytes_max
        self.where = f"{self.host}:{self.port}"
        self._settings = settings
        self._path = f"{parts.path or '/mqtt'}{'?' + parts.query if parts.query else ''}"
        self._is_tls = parts.scheme in ("mqtts", "wss")
        self._is_ws = parts.scheme in ("ws", "wss")
        self._user = settings.username or parts.username or ""
        self._receive_max = receive_max
        self._will = will
        self._takes_any = takes_any and not self._is_ws
        self._login = login
        self.retains = retains
        self._stamps = self._stamped()
        if self._user and not self._is_tls and self.host not in _LOOPBACK:
            log.warning("password_in_clear", broker=self.where, advice="use mqtts:// or wss://")

    def redial(self, *, spreads: bool = False) -> Redial:
        """When to connect again, from now on.

        `spreads`: after the broker was away, not before others had their turn, too.  On our own
        machine there are no others.
        """
        apart = spreads and self.host not in _LOOPBACK
        return Redial(
            self.client_id,
            delay_s_first=self._settings.reconnect_s_first,
            delay_s_max=self._settings.reconnect_s_max,
            spread_s=self._settings.reconnect_s_spread if apart else 0.0,
            dice=random.SystemRandom().random,  # devices cloned from one image must not agree
        )

    def client(self, kind: type[AnyClient]) -> AnyClient:
        """A paho client of class `kind` that is not connected yet; good for one connection."""
        made = kind(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            clean_session=None if self.is_v5 else False,
            protocol=MQTTProtocolVersion.MQTTv5 if self.is_v5 else MQTTProtocolVersion.MQTTv311,
            transport="websockets" if self._is_ws else "tcp",
            reconnect_on_failure=False,
            manual_ack=True,
        )
        made.connect_timeout = CONNECT_S_MAX
        if self._is_ws:
            made.ws_set_options(path=self._path)
        if self._will:
            topic, payload = self._will
            made.will_set(topic, payload, qos=1, retain=self.retains)
        return made

    def connect(self, client: Client) -> None:
        """Connect and send CONNECT; the answer is left to be read.  Blocks for up to 10 s.

        Raises:
            UnavailableError: it did not work, and the sentence says why.
        """
        if self._user:
            client.username_pw_set(self._user, self._password())
        if self._is_tls:
            self._stamps = self._stamped()
            client.tls_set_context(self._context())
        keepalive_s = max(1, round(self._settings.keepalive_s * KEEPALIVE_SHARE))
        try:
            if self.is_v5:
                client.connect(
                    self.host,
                    self.port,
                    keepalive_s,
                    clean_start=False,
                    properties=self._properties(),
                )
            else:
                client.connect(self.host, self.port, keepalive_s)
        except (OSError, ValueError) as error:
            raise UnavailableError(self._why(error)) from error

    def renewed(self) -> bool:
        """Whether certificates on disk are others than those last connected with, and usable.

        Half of a change is none: the key may be written after its certificate.
        """
        if self._stamped() == self._stamps:
            return False
        try:
            self._context()
        except UnavailableError:
            return False
        return True

    def _stamped(self) -> list[tuple[int, int, int]]:
        """What tells the files of the certificates from later ones; none, where others say."""
        ask = self._settings
        names = () if self._login is not None else (ask.ca_file, ask.cert_file, ask.key_file)
        stamps = []
        for name in names if self._is_tls else ():
            with contextlib.suppress(OSError):
                if name:
                    found = Path(name).stat()
                    stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return stamps

    def refusal(self, reason: ReasonCode) -> str:
        """What to tell a person when the broker's answer to CONNECT was no."""
        words = str(reason)
        if reason.value in (0x86, 0x87):
            who = f"the user {self._user!r}" if self._user else "a client without a user"
            advice = "check mqtt.username and mqtt.password_file"
            return f"the broker {self.where} does not let {who} in ({words}); {advice}"
        if reason.value == 0x85:
            return f"the broker {self.where} does not take the client id {self.client_id!r}"
        if reason.value in (0x84, 0x01):
            return f"the broker {self.where} does not speak this MQTT version; set mqtt.version"
        return f"the broker {self.where} refused us: {words}"

    def _properties(self) -> Properties:
        wishes = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        wishes.SessionExpiryInterval = SESSION_S
        wishes.ReceiveMaximum = self._receive_max
        if not self._takes_any:
            wishes.MaximumPacketSize = self.packet_bytes_max
        wishes.TopicAliasMaximum = 0
        return wishes

    def subscription(self) -> SubscribeOptions:
        """How orders are asked for (MQTT 5): what is retained says so to who hears it live, too."""
        return SubscribeOptions(qos=1, retainAsPublished=self.retains)

    def _password(self) -> str | None:
        if self._login is not None:
            return self._login.password()
        name = self._settings.password_file
        if not name:
            return None
        try:
            with Path(name).open("rb") as file:
                return file.read(SECRET_BYTES_MAX).decode("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no UTF-8"
            raise UnavailableError(f"cannot read mqtt.password_file {name}: {why}") from error

    def _context(self) -> ssl.SSLContext:
        ask = self._settings
        pem = self._login.authorities() if self._login is not None else ""
        try:
            context = ssl.create_default_context(cafile=ask.ca_file or None, cadata=pem or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if ask.cert_file:
                context.load_cert_chain(ask.cert_file, ask.key_file)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            keys = ("ca_file", "cert_file", "key_file")
            given = [f"mqtt.{key} {name}" for key in keys if (name := getattr(ask, key))]
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise UnavailableError(f"cannot use {', '.join(given)}: {why}") from error
        return context

    def _why(self, error: Exception) -> str:
        match error:
            case ssl.SSLCertVerificationError():
                advice = "check mqtt.ca_file and the name in mqtt.url"
                why = error.verify_message
                return f"the certificate of {self.where} is not trusted ({why}); {advice}"
            case ssl.SSLError():
                return f"no TLS with {self.where}: {error.reason or error}"
            case ConnectionRefusedError():
                return f"nothing listens at {self.where}; is the broker running?"
            case socket.gaierror():
                return f"cannot resolve the name {self.host}; check mqtt.url and the DNS"
            case WebsocketConnectionError():
                return f"{self.where} does not speak MQTT over websockets: {error}"
            case TimeoutError():
                return f"the broker {self.where} did not answer within {CONNECT_S_MAX:g} s"
            case _:
                return f"cannot connect to {self.where}: {error}"
