"""One connection of the control link, from CONNECT to its end.  An epoch: nothing outlives it.

Holds a paho client that was made for it alone, so that neither paho's queue nor a packet id of an
earlier connection can reach into this one.  All of it runs in the pump's thread; paho's callbacks
only write down what they were told.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.adapters.mqtt.guarded import Guarded
from agent.adapters.mqtt.options import CONNACK_S_MAX, Options
from agent.core.errors import RefusedError, UnavailableError
from agent.ports import Message

ACK_S_MAX = 60.0  # a broker that takes longer to acknowledge has forgotten us
TAKEN_OVER, SHUTS_DOWN = 0x8E, 0x8B
NO_SUBSCRIBERS = 0x10  # PUBACK: taken, and given to nobody
PACKET_BYTES_MAX = 268_435_455
HEADER_BYTES = 16  # fixed header, topic length, packet id, length of properties: at most
TOO_LARGE = 0x95
REFUSALS = {
    0x87: 403,
    0x90: 400,
    TOO_LARGE: 413,
    0x99: 415,
}  # PUBACK: never, and why (as HTTP says it)

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Letter:
    """One message on its way out; `answer` is told None once the broker has it, else why not."""

    topic: str
    payload: bytes
    retain: bool = False
    correlation: bytes | None = None
    answer: Callable[[Exception | None], None] = field(default=lambda _: None)
    sent: float = 0.0
    heard: bool = True  # False: the broker has it, and knows of nobody to give it to
    proves: list[Callable[[], None]] = field(default_factory=list)


class Connection:
    """The conversation with the broker over one socket.

    Args:
        options: whom to call, and as whom.
        greeting: letters that go first, before anything is subscribed.
        subscriptions: topic filters, QoS 1.
        window: letters that may be unacknowledged at once; the broker may allow fewer.
        inbox: is given each message and a packet id to acknowledge (0: nothing to acknowledge);
            must not raise or wait.
        clock: monotonic seconds.

    Raises:
        UnavailableError: the broker cannot be reached.
    """

    def __init__(
        self,
        options: Options,
        *,
        greeting: Sequence[Letter],
        subscriptions: Sequence[str],
        window: int,
        inbox: Callable[[Message, int], None],
        clock: Callable[[], float],
    ) -> None:
        self._options = options
        self._greeting = deque(greeting)
        self._subscriptions = subscriptions
        self._window = window
        self._size_max = PACKET_BYTES_MAX
        self._inbox = inbox
        self._clock = clock
        self._flights: dict[int, Letter] = {}
        self._unproven: list[Callable[[], None]] = []
        self._waiting: deque[Letter] = deque()
        self._answered = False  # CONNACK came
        self._subscribed = False
        self._began = clock()
        self.is_up = False  # greeted and subscribed
        self.was_up = False
        self.up_since = 0.0
        self.over = ""  # why it ended, in a sentence; empty while it stands
        self.doubt = ""  # what is not as it should be although it stands
        self.taken_over = self.going = False  # told: another came; the broker ends
        self.client = self._made()
        try:
            options.connect(self.client)
        except UnavailableError:
            self.close("")
            raise

    def _made(self) -> Guarded:
        client = self._options.client(Guarded)
        client.packet_bytes_max = self._options.packet_bytes_max
        client.max_inflight_messages = self._window
        client.max_queued_messages = self._window
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    # ---- driven by the pump ----

    def read(self) -> None:
        """Take what has come."""
        self.client.loop_read()

    def write(self) -> None:
        """Send what waits."""
        self.client.loop_write()

    def tick(self) -> None:
        """Keep-alive, deadlines, and the letters that the window lets go."""
        self.client.loop_misc()
        now = self._clock()
        if not self._answered:
            if now - self._began > CONNACK_S_MAX:
                self.close(
                    f"the broker {self._options.where} took the connection but does not answer"
                )
            return
        while self._greeting and len(self._flights) < self._window:
            self._send(self._greeting.popleft())
        if not self._greeting and not self._subscribed:
            self._subscribe()
        while self.is_up and self._waiting and len(self._flights) < self._window:
            self._send(self._waiting.popleft())
        oldest = next(iter(self._flights.values()), None)
        if oldest and now - oldest.sent > ACK_S_MAX:
            self.close(
                f"the broker has not acknowledged a message on {oldest.topic} for {ACK_S_MAX:g} s"
            )

    def post(self, letter: Letter) -> None:
        """Send `letter` when the window allows."""
        if letter.correlation is not None and not self._options.is_v5:
            letter.correlation = None
        self._waiting.append(letter)

    def ack(self, mid: int, proven: Callable[[], None] | None = None) -> None:
        """Tell the broker that this message need not come again.

        `proven` is called once the broker has surely read that: it has answered a later letter.
        """
        self.client.ack(mid, qos=1)
        if proven is not None:
            self._unproven.append(proven)

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way out."""
        return not (self._flights or self._waiting or self._greeting or self.client.want_write())

    def close(self, why: str) -> None:
        """Give the connection up; every letter on its way is told that it may not have arrived."""
        sock = self.client.socket()
        if sock is not None:
            sock.close()
        self.over = self.over or why or "closed"
        self.is_up = False
        lost = UnavailableError(f"the link was lost before the broker had the message: {self.over}")
        for letter in (*self._flights.values(), *self._waiting, *self._greeting):
            letter.answer(lost)
        self._flights.clear()
        self._waiting.clear()
        self._greeting.clear()

    def _send(self, letter: Letter) -> None:
        topic_bytes = len(letter.topic.encode())
        size = HEADER_BYTES + topic_bytes + len(letter.payload) + len(letter.correlation or b"")
        if size > self._size_max:
            why = f"a message of {size} bytes on {letter.topic} is more than the broker takes"
            letter.answer(RefusedError(f"{why} ({self._size_max})", 413))
            return
        properties = None
        if letter.correlation is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = letter.correlation
        try:
            sent = self.client.publish(
                letter.topic, letter.payload, qos=1, retain=letter.retain, properties=properties
            )
        except ValueError as error:
            letter.answer(RefusedError(f"cannot publish on {letter.topic!r}: {error}"))
            return
        if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            letter.answer(UnavailableError(f"the link was lost while sending on {letter.topic}"))
            return
        letter.sent = self._clock()
        letter.proves, self._unproven = self._unproven, []
        self._flights[sent.mid] = letter

    # ---- told by paho, from within read, write and tick ----

    def _on_connect(self, _c: Any, _u: Any, _f: Any, reason: ReasonCode, answer: Any) -> None:
        if reason.is_failure:
            self.over = self._options.refusal(reason)
            return
        self._window = max(1, min(self._window, getattr(answer, "ReceiveMaximum", self._window)))
        self._size_max = getattr(answer, "MaximumPacketSize", PACKET_BYTES_MAX)
        self._answered = True
        for letter in self._greeting:
            # Refused greetings leave the link up: better heard without its status than not at all.
            letter.answer = self._note

    def _subscribe(self) -> None:
        self._subscribed = True
        if not self._subscriptions:
            self._stands()
        elif self._options.is_v5:
            asked = self._options.subscription()
            self.client.subscribe([(t, asked) for t in self._subscriptions])
        else:
            self.client.subscribe([(t, 1) for t in self._subscriptions])

    def _on_subscribe(self, _c: Any, _u: Any, _m: int, codes: list[ReasonCode], _p: Any) -> None:
        for topic, code in zip(self._subscriptions, codes, strict=False):
            if code.is_failure:
                self.doubt = f"the broker refused the subscription to {topic} ({code})"
                log.warning("subscription_refused", topic=topic, reason=str(code))
        self._stands()

    def _stands(self) -> None:
        self.is_up = self.was_up = True
        self.up_since = self._clock()

    def _note(self, failure: Exception | None) -> None:
        if isinstance(failure, RefusedError):
            self.doubt = str(failure)

    def _on_publish(self, _c: Any, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        letter = self._flights.pop(mid, None)
        if letter is None:
            return
        for proven in letter.proves:
            proven()
        if not reason.is_failure:
            letter.heard = reason.value != NO_SUBSCRIBERS
            letter.answer(None)
            return
        code = self.client.odd_reason or reason.value
        why = f"the broker does not take the message on {letter.topic}: {reason} (0x{code:02x})"
        if code in REFUSALS:
            letter.answer(RefusedError(why, REFUSALS[code]))
        else:
            letter.answer(UnavailableError(why))

    def _on_message(self, _c: Any, _u: Any, message: MQTTMessage) -> None:
        mid = message.mid if message.qos == 1 else 0
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.warning("message_dropped", why="its topic is not UTF-8")
            if mid:
                self.ack(mid)
            return
        known = message.properties
        came = Message(
            topic,
            bytes(message.payload),
            message.retain,
            getattr(known, "ResponseTopic", None),
            getattr(known, "CorrelationData", None),
        )
        self._inbox(came, mid)

    def _on_disconnect(self, _c: Any, _u: Any, flags: Any, reason: ReasonCode, _p: Any) -> None:
        told = reason.value if flags.is_disconnect_packet_from_server else 0
        self.taken_over = told == TAKEN_OVER
        self.going = told == SHUTS_DOWN or (not told and self.client.hung_up)
        if reason.value == TOO_LARGE and self._flights:
            # Said by hanging up; to try the same again would lose the link again, for ever.
            mid = max(self._flights, key=lambda m: len(self._flights[m].payload))
            letter = self._flights.pop(mid)
            why = f"a message of {len(letter.payload)} bytes on {letter.topic} is too large"
            letter.answer(RefusedError(f"{why} for the broker", 413))
        if self.client.too_big:
            size = self.client.too_big
            self.over = f"the broker sends {size} bytes at once; mqtt.packet_bytes_max is less"
        elif flags.is_disconnect_packet_from_server:
            self.over = self.over or f"the broker {self._options.where} closed the link: {reason}"
        else:
            self.over = self.over or f"the link to the broker {self._options.where} was lost"
