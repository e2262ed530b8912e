"""A stream that comes over the control connection, where the broker grants no second one.

edgeHub lets one connection stand for each identity: a module's inputs share it with its twin.  The
pump's thread fills, the lane's thread reads; between them is a queue with a bound.
"""

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from agent.adapters.mqtt.connection import Connection
from agent.adapters.mqtt.filters import levels, matches
from agent.adapters.mqtt.ledger import Token
from agent.adapters.mqtt.link import MqttLink, Tap
from agent.adapters.mqtt.packets import NO_MID, Scan
from agent.adapters.mqtt.sorting import Sorter
from agent.core.errors import RefusedError
from agent.ports import Burst, Message, Source

HELD_MAX = 50_000  # messages; beyond them the broker keeps what comes, and sends it again
HELD_BYTES_MAX = 32 * 1024 * 1024
TICK_S = 1.0

log = structlog.get_logger(__name__)


class Tributary(Source, Tap):
    """Readings of one stream out of a link's messages, exactly once as `MqttSource` gives them.

    The broker may send an unacknowledged message again without DUP and under another packet id, but
    must do so before anything new.

    Args:
        topic: the filter of what is for the stream.
        named: the topic that the stream sees, of the topic it came on.
        held_max: messages that wait for the lane at most; the broker keeps the others.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        stream: str,
        topic: str,
        *,
        named: Callable[[bytes], bytes],
        held_max: int = HELD_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"link:{stream}"
        self.stream = stream
        self._wanted = levels(topic)
        self._sorter = Sorter([(stream, topic, 1)], plain=True)
        self._named = named
        self._held_max = held_max
        self._clock = clock
        self._link: MqttLink | None = None
        self._epoch: Connection | None = None
        self._lock = threading.Lock()  # over what came and how much is held
        self._came: deque[tuple[Connection, Message, int]] = deque()
        self._held_bytes = 0
        self._owed: Connection | None = None  # over which messages came that were not held
        self._asked: Connection | None = None  # for which they were asked for again
        self._out = 0  # bursts that are not accepted yet
        self._proven: deque[list[Token]] = deque()
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._wake_w.setblocking(False)

    # ---- the tap, in the pump's thread ----

    def joined(self, link: MqttLink) -> None:
        """Whose messages these will be."""
        self._link = link

    def took(self, message: Message, epoch: Connection, mid: int) -> bool:
        """Whether `message` is for the stream; then it waits for the lane."""
        if not matches(self._wanted, message.topic.split("/")):
            return False
        with self._lock:
            room = len(self._came) < self._held_max and self._held_bytes < HELD_BYTES_MAX
            if self._owed is epoch or not room:  # in order or not at all
                self._owed = epoch
                return True
            self._came.append((epoch, message, mid))
            self._held_bytes += len(message.payload)
            if len(self._came) == 1:
                with contextlib.suppress(OSError):
                    self._wake_w.send(b"\0")
        return True

    # ---- the source, in the lane's thread ----

    def fileno(self) -> int:
        """Readable while messages wait."""
        return self._wake_r.fileno()

    def wants_write(self) -> bool:
        """Never: the pump writes."""
        return False

    def read(self, readings_max: int) -> Sequence[Burst]:
        """All that has come, up to `readings_max` messages."""
        self._confirm()
        with self._lock:
            taken = [self._came.popleft() for _ in range(min(readings_max, len(self._came)))]
            self._held_bytes -= sum(len(message.payload) for _, message, _ in taken)
            if not self._came:
                with contextlib.suppress(BlockingIOError):
                    self._wake_r.recv(4096)
        bursts: list[Burst] = []
        found = Scan()
        for epoch, message, mid in taken:
            if epoch is not self._epoch:
                bursts += self._sorted(found)
                found = Scan()
                self._epoch = epoch
                self._sorter.reconnected(kept=True)
            found.topics.append(message.topic.encode())
            found.payloads.append(message.payload)
            found.mids.append(mid.to_bytes(2, "big") if mid else NO_MID)
        bursts += self._sorted(found)
        self._out += sum(burst.token is not None for burst in bursts)
        self._ask_again()
        return bursts

    def accept(self, tokens: Sequence[object]) -> None:
        """Acknowledge these bursts, on the connection they came over."""
        self._confirm()
        mids, done = self._sorter.accept(tokens)
        if mids:
            self._settle(mids, done)
        else:
            self._sorter.confirm(done)
        self._out -= len(tokens)
        self._ask_again()

    def resume(self, mark: bytes) -> None:
        """What was accounted for when this stream last stopped; a mark of others is left."""
        try:
            self._sorter.resume(mark)
        except RefusedError as error:
            log.warning("mark_ignored", source=self.name, why=str(error))

    def tick(self, now: float) -> float:
        """Nothing but what has been proven meanwhile."""
        self._confirm()
        return now + TICK_S

    def trouble(self) -> str:
        """As the link's."""
        return self._link.trouble() if self._link is not None else "the link is not there yet"

    def close(self) -> None:
        """Take no more.  What was not accepted stays with the broker."""
        with self._lock:
            self._wake_r.close()
            self._wake_w.close()

    def _sorted(self, found: Scan) -> list[Burst]:
        bursts, acks, settled = self._sorter.sort(found, self._clock())
        if acks:
            self._settle(acks, settled)
        for burst in bursts:
            if burst.topics:
                names = {topic: self._named(topic) for topic in set(burst.topics)}
                burst.topics = [names[topic] for topic in burst.topics]
        return bursts

    def _settle(self, mids: list[bytes], done: list[Token]) -> None:
        if self._link is None or self._epoch is None:
            return
        numbers = [int.from_bytes(mid, "big") for mid in mids]
        self._link.settle(self._epoch, numbers, lambda: self._proven.append(done))

    def _ask_again(self) -> None:
        """For what could not be held, once nothing else is left to be acknowledged."""
        with self._lock:
            owed = None if self._came or self._out else self._owed
        if owed is not None and owed is not self._asked and self._link is not None:
            log.warning("inputs_owed", why="more came than could be held; asking for it again")
            self._asked = owed
            self._link.renew()

    def _confirm(self) -> None:
        while self._proven:
            self._sorter.confirm(self._proven.popleft())
