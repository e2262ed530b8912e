"""A short talk with the broker from the operator's side: collect, publish, follow.

Synchronous, for commands that end.  Not the device's link: nothing is kept here across a restart,
and while a follower reconnects by itself, a publisher that is cut off says so instead of waiting.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Self

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.config import Mqtt
from agent.core.errors import RefusedError, UnavailableError
from agent.core.topics import Topics
from agent.ports import Message
from agent.repository import dial

PUBLISH_S_MAX = 10.0
SUBACK_S = 3.0  # of one try to subscribe
POSTED_MAX = 1000  # on their way, before the poster waits
STALL_S_MAX = 30.0  # without a single acknowledgement
SETTLE_S_MAX = 2.0  # for all that is retained, where the broker does not let us hear our own echo
QUIET_S = 0.1  # after our echo: not every broker keeps the order between retained and live
PACKET_BYTES_MAX = 4 * 2**20


class Conversation:
    """One connection, used by one thread.  Enter it to connect.

    Raises on entering:
        UnavailableError: the broker cannot be reached, or does not let us in.
    """

    def __init__(self, settings: Mqtt) -> None:
        self.root = settings.root
        self._settings = settings
        self._name = f"operator-{secrets.token_hex(6)}"
        self._echo = Topics(settings.root, self._name).answer("echo")
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._answered = threading.Event()
        self._is_up = threading.Event()
        self._connack: ReasonCode | None = None
        self._packet_bytes_max: int | None = None
        self._filters: list[str] = []
        self._granted: dict[int | None, list[ReasonCode]] = {}
        self._suback = threading.Condition()
        self._acks = threading.Condition()
        self._posted = self._acked = 0
        self._refused: dict[int | None, ReasonCode] = {}  # by message id
        self._url = dial.url_of(settings)
        self._client = dial.client(settings, self._name)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe

    def __enter__(self) -> Self:
        dial.connect(self._client, self._settings, packet_bytes_max=PACKET_BYTES_MAX)
        self._client.loop_start()
        came = self._answered.wait(dial.CONNECT_S_MAX)
        if not came or (self._connack is not None and self._connack.is_failure):
            self.close()
            if not came:
                raise UnavailableError(f"{self._url} took the connection and then said nothing")
            raise UnavailableError(
                f"{self._url} does not let us in: {self._connack}; user name and password come from"
                " EDGE_AGENT__MQTT__USERNAME and EDGE_AGENT__MQTT__PASSWORD_FILE"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye and end the network thread."""
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()  # noqa: SLF001  # paho leaves open what woke its thread

    @property
    def away(self) -> str:
        """Why nothing can come now, in a sentence; empty while the broker is there."""
        return "" if self._is_up.is_set() else f"{self._url} is away; it is tried again"

    # ---- what one can do -------------------------------------------------------------------------

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        response_topic: str = "",
        correlation: bytes = b"",
    ) -> None:
        """QoS 1; returns once the broker has acknowledged it.

        Raises:
            UnavailableError: no acknowledgement came.
            RefusedError: the broker does not take it (size, topic, rights).
        """
        if self._packet_bytes_max is not None:
            room = self._packet_bytes_max - len(topic.encode()) - 64
            if len(payload) > room:
                raise RefusedError(
                    f"{self._url} takes at most {room} bytes in a message on {topic},"
                    f" not {len(payload)}",
                    413,
                )
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if response_topic:
            properties.ResponseTopic = response_topic
            properties.CorrelationData = correlation
        self._posted += 1
        info = self._client.publish(
            topic,
            payload,
            qos=1,
            retain=retain,
            properties=properties if self._settings.version == 5 else None,
        )
        try:
            info.wait_for_publish(PUBLISH_S_MAX)
        except (RuntimeError, ValueError) as error:
            raise UnavailableError(f"the connection to {self._url} was lost") from error
        if not info.is_published():
            raise UnavailableError(f"{self._url} did not acknowledge a message on {topic}")
        if (reason := self._refused.pop(info.mid, None)) is not None:
            raise RefusedError(f"{self._url} does not take a message on {topic}: {reason}", 403)

    def post(self, topic: str, payload: bytes) -> None:
        """QoS 1, without waiting for this one: only until at most `POSTED_MAX` are on their way.

        A broker that goes away for less than `STALL_S_MAX` is waited for, and nothing is lost.

        Raises:
            UnavailableError: the acknowledgements have stopped coming.
            RefusedError: the broker did not take one of those before.
        """
        self._await_acks(POSTED_MAX - 1)
        self._posted += 1
        self._client.publish(topic, payload, qos=1)

    def flush(self) -> None:
        """Until everything posted is acknowledged.  Raises as `post` does."""
        self._await_acks(0)

    def _await_acks(self, open_max: int) -> None:
        with self._acks:
            while self._posted - self._acked > open_max:
                before = self._acked
                self._acks.wait(STALL_S_MAX)
                if self._acked == before:
                    raise UnavailableError(f"{self._url} has stopped acknowledging messages")
        if self._refused:
            reason = next(iter(self._refused.values()))
            raise RefusedError(f"{self._url} does not take our messages: {reason}", 403)

    def follow(self, *filters: str) -> None:
        """From now on `next` gives what comes under these filters, retained messages first.

        Raises:
            UnavailableError: no answer came.
            RefusedError: the broker does not let us.
        """
        self._filters += [f for f in filters if f not in self._filters]
        until = time.monotonic() + PUBLISH_S_MAX
        while (granted := self._subscribe(filters)) is None:
            if time.monotonic() > until:
                raise UnavailableError(f"{self._url} did not answer a subscription")
        for name, reason in zip(filters, granted, strict=False):
            if reason.is_failure:
                raise RefusedError(f"{self._url} does not let us read {name}: {reason}", 403)

    def _subscribe(self, filters: Sequence[str]) -> list[ReasonCode] | None:
        """One try; None if the connection broke meanwhile, or the broker takes its time."""
        if not self._is_up.wait(SUBACK_S):
            return None
        _, mid = self._client.subscribe([(f, 1) for f in filters])
        with self._suback:
            self._suback.wait_for(
                lambda: mid in self._granted or not self._is_up.is_set(), SUBACK_S
            )
            return self._granted.pop(mid, None)

    def next(self, timeout_s: float) -> Message | None:
        """The next message under any filter followed, or None if none came in time."""
        try:
            return self._inbox.get(timeout=max(timeout_s, 0.0))
        except Empty:
            return None

    def messages(self, until: float) -> Iterator[Message | None]:
        """What comes until the monotonic time `until`; None each second in which nothing does."""
        while (left := until - time.monotonic()) > 0:
            yield self.next(min(left, 1.0))

    def retained(self, *filters: str) -> dict[str, bytes]:
        """The last document of each topic under `filters`; they stay followed.

        Whether all have come is known by an echo: what the broker sends us after the retained ones.
        """
        self.follow(self._echo)
        self.follow(*filters)
        token = secrets.token_bytes(8)
        self.post(self._echo, token)
        found: dict[str, bytes] = {}
        until = time.monotonic() + SETTLE_S_MAX
        while (message := self.next(until - time.monotonic())) is not None:
            if message.topic == self._echo:
                until = time.monotonic() + QUIET_S
            else:
                found[message.topic] = message.payload
                until = max(until, time.monotonic() + QUIET_S)
        return {topic: payload for topic, payload in found.items() if payload}

    # ---- callbacks: on the network thread, which an exception would end without a word -----------

    def _on_connect(
        self,
        _client: Client,
        _userdata: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._connack = reason
        self._packet_bytes_max = getattr(properties, "MaximumPacketSize", None)
        if self._filters and not reason.is_failure:
            self._client.subscribe([(f, 1) for f in self._filters])
        if not reason.is_failure:
            self._is_up.set()
        self._answered.set()

    def _on_disconnect(self, *_: object) -> None:
        self._is_up.clear()
        with self._suback:
            self._suback.notify_all()

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        properties = message.properties
        self._inbox.put(
            Message(
                topic=message.topic,
                payload=bytes(message.payload),
                retain=message.retain,
                correlation=getattr(properties, "CorrelationData", None),
            )
        )

    def _on_publish(
        self,
        _client: Client,
        _userdata: object,
        mid: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:  # paho calls such a message published
            self._refused[mid] = reason
        with self._acks:
            self._acked += 1
            self._acks.notify_all()

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: object,
        mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        with self._suback:
            self._granted[mid] = reasons
            self._suback.notify_all()
