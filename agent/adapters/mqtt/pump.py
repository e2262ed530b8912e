"""The thread of the control link: connects, pumps, loses, waits, connects again.

Ends when it is told to, and never otherwise: whatever goes wrong inside a connection costs that
connection.  Other threads reach it through `post`, `ack` and `stop`, which only enqueue.
"""

import contextlib
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from agent.adapters.mqtt.connection import Connection, Letter
from agent.adapters.mqtt.options import Options
from agent.core.errors import UnavailableError
from agent.ports import Message

TICK_S = 1.0
GOODBYE_S_MAX = 3.0
DRAIN_S_MAX = 5.0  # for what is on its way, before a planned reconnect

log = structlog.get_logger(__name__)


class Ears(Protocol):
    """What the pump tells.  Called in its thread; must not wait or raise."""

    def came(self, message: Message, epoch: Connection, mid: int) -> None:
        """A message; `mid` is 0 where nothing is to be acknowledged."""
        ...

    def stands(self) -> None:
        """The link is up: greeted and subscribed."""
        ...

    def fell(self) -> None:
        """The link is down."""
        ...


class Pump:
    """Keeps one connection up.  `trouble` says, in a sentence, why it does not stand just now."""

    def __init__(
        self,
        options: Options,
        ears: Ears,
        *,
        greeting: Callable[[], Sequence[tuple[str, bytes, bool]]],
        goodbye: tuple[str, bytes] | None,
        subscriptions: Sequence[str],
        window: int,
        clock: Callable[[], float],
        retains: bool = True,
    ) -> None:
        name = f"mqtt-{options.client_id}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._options = options
        self._ears = ears
        self._greeting = greeting
        self._goodbye = goodbye
        self._goodbye_until = 0.0
        self._retains = retains
        self._subscriptions = subscriptions
        self._window = window
        self._clock = clock
        self._redial = options.redial(spreads=True)
        self._letters: deque[Letter] = deque()
        self._acks: deque[tuple[Connection, int, Callable[[], None] | None]] = deque()
        self._is_stopping = threading.Event()
        self._bounce = threading.Event()
        self._renew = threading.Event()
        self._drain_until = 0.0
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._wake_w.setblocking(False)
        self._is_woken = False  # a byte waits in the socket pair, or is about to
        self.trouble = f"not yet connected to {options.where}"

    # ---- from any thread ----

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for its end, but not for ever: nobody can stop a thread that resolves a name."""
        self._thread.join(seconds)

    def post(self, letter: Letter) -> None:
        """Send `letter`, or answer it with UnavailableError if there is no link."""
        self._letters.append(letter)
        self._wake()

    def ack(self, epoch: Connection, mid: int, proven: Callable[[], None] | None = None) -> None:
        """Acknowledge a message, unless the connection it came over is gone."""
        self._acks.append((epoch, mid, proven))
        self._wake()

    def bounce(self) -> None:
        """Connect afresh now, so that the broker sends again what was not acknowledged."""
        self._bounce.set()
        self._wake()

    def renew(self) -> None:
        """Connect afresh as planned: end what is on its way, disconnect in order, and come back."""
        self._renew.set()
        self._wake()

    def stop(self) -> None:
        """Say goodbye and end."""
        self._is_stopping.set()
        self._wake()

    def _wake(self) -> None:
        if self._is_woken:
            return
        self._is_woken = True  # before the byte: who drains it takes the flag back after it
        with contextlib.suppress(OSError):  # closed: it has ended
            self._wake_w.send(b"\0")

    # ---- in the thread ----

    def _run(self) -> None:
        """Connect, serve, and do it again, until stopped."""
        try:
            while not self._is_stopping.is_set():
                try:
                    delay_s = self._once()
                except Exception as error:  # this thread must outlive any surprise
                    log.exception("mqtt_surprise")
                    delay_s = self._failed(f"something odd happened on the link: {error!r}")
                self._wait(delay_s)
        finally:
            self._refuse_letters()
            self._wake_r.close()
            self._wake_w.close()

    def _once(self) -> float:
        """One connection from beginning to end; returns the seconds to wait before the next."""
        self._renew.clear()
        self._drain_until = 0.0
        try:
            connection = Connection(
                self._options,
                greeting=[Letter(topic, body, keep) for topic, body, keep in self._greeting()],
                subscriptions=self._subscriptions,
                window=self._window,
                inbox=lambda message, mid: self._ears.came(message, connection, mid),
                clock=self._clock,
            )
        except UnavailableError as error:
            refused = isinstance(error.__cause__, ConnectionRefusedError)
            return self._failed(str(error), refused=refused)
        try:
            self._serve(connection)
        except Exception as error:  # paho stumbles over malformed packets in many ways
            log.warning("mqtt_surprise", error=repr(error), exc_info=True)
            connection.over = connection.over or f"the broker sent something odd: {error!r}"
        finally:
            self._ears.fell()
            connection.close("")
        if self._is_stopping.is_set():
            return 0.0
        if self._bounce.is_set() or (self._renew.is_set() and connection.was_up):
            self._bounce.clear()
            return 0.0
        if not connection.was_up:
            return self._failed(connection.over)
        now = self._clock()
        told = connection.taken_over if self._options.is_v5 else None
        delay_s, fight = self._redial.lost(
            now, lived_s=now - connection.up_since, taken_over=told, going=connection.going
        )
        self.trouble = fight or connection.over
        log.warning("mqtt_lost", why=self.trouble, retry_s=round(delay_s, 1))
        return delay_s

    def _failed(self, why: str, *, refused: bool = False) -> float:
        delay_s = self._redial.failed(refused=refused)
        if why != self.trouble:  # said once, not at each attempt
            log.warning("mqtt_unreachable", why=why, retry_s=round(delay_s, 1))
        self.trouble = why
        return delay_s

    def _serve(self, link: Connection) -> None:
        """Until the connection ends."""
        told = False
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_r, selectors.EVENT_READ)
            sock = link.client.socket()
            assert sock is not None
            selector.register(sock, selectors.EVENT_READ)
            while not link.over and link.client.socket() is not None:
                wish = selectors.EVENT_READ
                if link.client.want_write():
                    wish |= selectors.EVENT_WRITE
                selector.modify(sock, wish)
                pending = getattr(sock, "pending", int)()  # bytes that TLS holds already
                ready = {key.fd: mask for key, mask in selector.select(0 if pending else TICK_S)}
                if self._wake_r.fileno() in ready:
                    self._drain_wake()
                mask = ready.get(sock.fileno(), 0)
                if pending or mask & selectors.EVENT_READ:
                    link.read()
                if mask & selectors.EVENT_WRITE:
                    link.write()
                self._pass_on(link)
                link.tick()
                if link.is_up and not told:
                    told = True
                    self.trouble = link.doubt
                    self._ears.stands()
                    log.info("mqtt_up", broker=self._options.where)
                if link.is_up and not self._renew.is_set() and self._options.renewed():
                    log.info("mqtt_renewing", why="there are new certificates")
                    self._renew.set()
                if self._bounce.is_set():
                    link.close("connecting afresh")
                if self._renew.is_set() and self._drained(link):
                    break
                if self._is_stopping.is_set() and self._said_goodbye(link):
                    break

    def _pass_on(self, link: Connection) -> None:
        while self._acks:
            epoch, mid, proven = self._acks.popleft()
            if epoch is link:  # on another connection the id may stand for another message
                link.ack(mid, proven)
        if link.is_up and self._renew.is_set():
            return  # what comes now is for the next connection
        if link.is_up:
            while self._letters:
                link.post(self._letters.popleft())
        else:
            self._refuse_letters()

    def _drained(self, link: Connection) -> bool:
        if not link.is_up:  # it is only just being made, with what is new
            return False
        if not self._drain_until:
            self._drain_until = self._clock() + DRAIN_S_MAX
        if not link.idle and self._clock() < self._drain_until:
            return False
        link.client.disconnect()
        link.write()
        return True

    def _said_goodbye(self, link: Connection) -> bool:
        if not link.is_up:
            return True
        if self._goodbye is not None:
            topic, payload = self._goodbye
            self._goodbye = None
            self._goodbye_until = self._clock() + GOODBYE_S_MAX
            link.post(Letter(topic, payload, retain=self._retains))
            link.tick()
        if not link.idle and self._clock() < self._goodbye_until:
            return False
        link.client.disconnect()
        link.write()
        return True

    def _wait(self, delay_s: float) -> None:
        until = self._clock() + delay_s
        while not self._is_stopping.is_set() and (left := until - self._clock()) > 0:
            self._refuse_letters()
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_r, selectors.EVENT_READ)
                if selector.select(min(left, TICK_S)):
                    self._drain_wake()

    def _refuse_letters(self) -> None:
        while self._letters:
            why = (
                f"no link to the broker: {self.trouble}"
                if self.trouble
                else "no link to the broker"
            )
            self._letters.popleft().answer(UnavailableError(why))

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_r.recv(4096)
        self._is_woken = False  # before the letters are looked at: one that comes now wakes again
