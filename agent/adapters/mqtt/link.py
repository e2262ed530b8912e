"""The control and telemetry link: the asyncio face of the pump.

Every coroutine here belongs to the event loop that runs `run`; the pump's thread reaches that loop
by `call_soon_threadsafe` only.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import structlog

from agent.adapters.mqtt.connection import Connection, Letter
from agent.adapters.mqtt.options import Options
from agent.adapters.mqtt.pump import GOODBYE_S_MAX, Pump
from agent.config import Mqtt
from agent.core.errors import UnavailableError
from agent.ports import Link, Login, Message

RECEIVE_MAX = 16  # QoS 1 messages the broker may have under way to us
INBOX_MAX = 256  # messages held for the consumer; beyond it QoS 0 is dropped, QoS 1 comes again
INBOX_BYTES_MAX = 16 * 1024 * 1024
WAITING_MAX = 1024  # callers of publish; each holds one message

log = structlog.get_logger(__name__)


def _nothing() -> Sequence[tuple[str, bytes, bool]]:
    return ()


class Tap(Protocol):
    """Takes messages out of the link before its consumer sees them; acknowledges them itself."""

    def joined(self, link: "MqttLink") -> None:
        """Whose messages these will be; once, when the link is made."""
        ...

    def took(self, message: Message, epoch: Connection, mid: int) -> bool:
        """Whether `message` is for the tap.  In the pump's thread; must not wait or raise."""
        ...


class MqttLink(Link):
    """An MQTT 5 or 3.1.1 connection with a persistent session, as `ports.Link` describes it.

    A message is acknowledged to the broker when the consumer of `messages` comes back for the next
    one, so what it was doing when the power went comes again (at least once; consumers are
    idempotent).  One consumer at a time.

    Args:
        settings: the `[mqtt]` section, with a real address as `url`.
        client_id: MQTT client id and session name; nobody else may use it.
        will: topic and payload that the broker publishes, retained, when we vanish.
        on_connect: asked at each connect; (topic, payload, retain) published before anything else.
        goodbye: topic and payload published, retained, before a DISCONNECT in order.
        subscriptions: topic filters, QoS 1, renewed at each connect.
        inflight_max: publishes that may be unacknowledged at once; the broker may allow fewer.
        clock: monotonic seconds.
        login: who we are, where that is not in `settings`.
        retains: whether the broker keeps retained messages; where not, will and goodbye ask for
            none.
        taps: take some of the messages out.

    Raises:
        RefusedError: `settings.url` is no address.
    """

    def __init__(
        self,
        settings: Mqtt,
        *,
        client_id: str,
        will: tuple[str, bytes] | None = None,
        on_connect: Callable[[], Sequence[tuple[str, bytes, bool]]] = _nothing,
        goodbye: tuple[str, bytes] | None = None,
        subscriptions: Sequence[str] = (),
        inflight_max: int = 16,
        clock: Callable[[], float] = time.monotonic,
        login: Login | None = None,
        retains: bool = True,
        taps: Sequence[Tap] = (),
    ) -> None:
        receive_max = max(1, min(RECEIVE_MAX, INBOX_BYTES_MAX // settings.packet_bytes_max))
        self._options = Options(
            settings, client_id, receive_max=receive_max, will=will, login=login, retains=retains
        )
        self._retains = retains
        self._on_connect = on_connect
        self._goodbye = goodbye
        self._subscriptions = tuple(subscriptions)
        self._inflight_max = inflight_max
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pump: Pump | None = None
        self._up = asyncio.Event()
        self._stood = 0  # connections so far
        self._again = asyncio.Event()  # another one stands; replaced each time
        self._publishing = 0
        self._told: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._is_telling = False  # the loop has been asked to look at `_told`
        # Written by the pump alone; `_finished` by the loop alone: held = came - finished.
        self._came = self._came_bytes = 0
        self._finished = self._finished_bytes = 0
        self._inbox: asyncio.Queue[tuple[Message, Connection, int]] = asyncio.Queue()
        self._owed = False  # the broker has messages that we could not hold
        self.dropped = 0  # QoS 0 messages that could not be held
        self._taps = tuple(taps)
        for tap in taps:
            tap.joined(self)

    # ---- the port ----

    async def messages(self) -> AsyncIterator[Message]:
        """Messages as they come, for one consumer.

        Leaving the loop in the middle of a message leaves that message unacknowledged: the broker
        sends it again at the next connect.
        """
        while True:
            message, epoch, mid = await self._inbox.get()
            try:
                yield message
            finally:
                self._finished += 1
                self._finished_bytes += len(message.payload)
            if self._pump is not None:
                if mid:
                    self._pump.ack(epoch, mid)
                if self._owed and self._inbox.empty():
                    self._owed = False
                    self._pump.bounce()

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        correlation: bytes | None = None,
    ) -> bool:
        """QoS 1; returns once the broker has acknowledged it.  Nothing is queued without a link.

        False where the broker says that nobody has subscribed (MQTT 5 only).

        Raises:
            UnavailableError: not connected, or the link was lost before the answer (the message
                may have arrived), or the broker is busy.
            RefusedError: the broker will never take this message (413 size, 400 topic, 403 rights).
        """
        pump = self._pump
        if pump is None or not self._up.is_set():
            raise UnavailableError(f"no link to the broker: {self.trouble()}")
        if self._publishing >= WAITING_MAX:
            raise UnavailableError(f"{WAITING_MAX} messages wait for the broker already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle(failure: Exception | None) -> None:
            if future.done():
                return
            if failure is None:
                future.set_result(None)
            else:
                future.set_exception(failure)

        def answer(failure: Exception | None) -> None:
            self._tell(settle, failure)

        letter = Letter(topic, payload, retain, correlation, answer)
        self._publishing += 1
        try:
            pump.post(letter)
            await future
        finally:
            self._publishing -= 1
        return letter.heard

    async def connected(self) -> None:
        """Until the link stands: greeted and subscribed."""
        await self._up.wait()

    async def fresh(self, after: int) -> int:
        """Until a connection later than the one numbered `after` stands; its number, from 1."""
        while self._stood <= after or not self._up.is_set():
            await self._again.wait()
        return self._stood

    def renew(self) -> None:
        """Connect afresh, as planned: what is under way ends first, and the session is kept."""
        if self._pump is not None:
            self._pump.renew()

    def settle(self, epoch: Connection, mids: Sequence[int], proven: Callable[[], None]) -> None:
        """Acknowledge what a tap took; `proven`, in the pump's thread, once the broker knows."""
        pump = self._pump
        if pump is not None and mids:
            for mid in mids[:-1]:
                pump.ack(epoch, mid)
            pump.ack(epoch, mids[-1], proven)

    def trouble(self) -> str:
        """Why it does not stand, in a sentence; empty if it does.

        Also says what is wrong with a link that stands: a refused subscription or greeting.
        """
        return self._pump.trouble if self._pump else "the link is not running"

    async def run(self) -> None:
        """Keep the link up until cancelled; then publish the goodbye and disconnect in order."""
        assert self._pump is None, "run is called once at a time"
        self._loop = asyncio.get_running_loop()
        self._told.clear()
        self._is_telling = False
        self._pump = pump = Pump(
            self._options,
            self,
            greeting=self._on_connect,
            goodbye=self._goodbye,
            subscriptions=self._subscriptions,
            window=self._inflight_max,
            clock=self._clock,
            retains=self._retains,
        )
        pump.start()
        try:
            await asyncio.Event().wait()
        finally:
            pump.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.to_thread(pump.join, 2 * GOODBYE_S_MAX)
            self._up.clear()
            self._pump = None
            self._loop = None

    # ---- told by the pump, in its thread ----

    def came(self, message: Message, epoch: Connection, mid: int) -> None:
        """A message came."""
        if any(tap.took(message, epoch, mid) for tap in self._taps):
            return
        held = self._came - self._finished
        held_bytes = self._came_bytes - self._finished_bytes + len(message.payload)
        if held >= INBOX_MAX or (held and held_bytes > INBOX_BYTES_MAX):
            # MQTT 5 brokers keep to ReceiveMaximum and come here with QoS 0 only.
            if mid:
                self._owed = True
            else:
                self.dropped += 1
                if self.dropped & (self.dropped - 1) == 0:  # said at 1, 2, 4, 8 …
                    log.warning("control_messages_dropped", count=self.dropped)
            return
        self._came += 1
        self._came_bytes += len(message.payload)
        self._tell(self._inbox.put_nowait, (message, epoch, mid))

    def stands(self) -> None:
        """The link is up."""
        self._tell(self._up_again)

    def fell(self) -> None:
        """The link is down."""
        self._tell(self._up.clear)

    def _tell(self, call: Callable[..., object], *args: object) -> None:
        """Have it called in the loop, in order; what comes together wakes the loop once."""
        loop = self._loop
        if loop is None:
            return
        self._told.append((call, args))
        if not self._is_telling:
            self._is_telling = True
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to tell
                loop.call_soon_threadsafe(self._hear)

    def _up_again(self) -> None:
        self._stood += 1
        self._up.set()
        self._again.set()
        self._again = asyncio.Event()

    def _hear(self) -> None:
        self._is_telling = False  # first: what is told from now on wakes the loop again
        while self._told:
            call, args = self._told.popleft()
            call(*args)
