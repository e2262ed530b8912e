"""A gate before a real Mosquitto: packets go through it, and rules say which.

Carries MQTT 3.1.1 both ways, packet by packet, so that what the broker does (sessions, DUP, QoS)
stays real, and a cloud's own laws are enforced where Mosquitto has no word for them.
"""

import asyncio
import contextlib
import ssl
import struct
import threading
from dataclasses import dataclass, field

from tests.world.hostile import CONNACK, CONNECT, PUBACK, PUBLISH, SUBACK, SUBSCRIBE, packet


class RefusedConnection(Exception):
    """The client is not let in; the code goes into CONNACK."""

    def __init__(self, code, why):
        super().__init__(why)
        self.code = code


class BrokenRule(Exception):
    """The client is thrown out."""


@dataclass
class Entrance:
    """What CONNECT said."""

    level: int
    client_id: str
    username: str
    password: str
    clean: bool
    keepalive_s: int
    will: tuple | None  # topic, payload, qos, retain
    tls: bool
    peer: dict = field(default_factory=dict)  # of the client's certificate


@dataclass(eq=False)
class Visitor:
    """One connection through the gate."""

    entrance: Entrance
    writer: asyncio.StreamWriter
    filters: set = field(default_factory=set)  # asked for
    heard: set = field(default_factory=set)  # agreed to by the broker
    partly: dict = field(default_factory=dict)  # packet id of a SUBSCRIBE -> topic, was it allowed

    def close(self):
        self.writer.transport.abort()


class Rules:
    """What a gate asks.  Overridden; as it stands it lets everything through."""

    def entered(self, visitor):
        """Raises RefusedConnection.  Returns the wall seconds it may stay, or None."""

    def left(self, visitor):
        pass

    def published(self, visitor, topic, payload, qos, retain):
        """Raises BrokenRule.  Whether it is passed on."""
        return True

    def allows(self, visitor, topic_filter, qos):
        return True

    def down(self, visitor, head, body):
        """Packets to send instead of a PUBLISH that goes to the client."""
        return [packet(head, body)]

    def acked(self, visitor, mid):
        """Whether a PUBACK of the client is passed on."""
        return True


class Gate:
    """`open` and `shut` any number of times; same port."""

    def __init__(self, port, target_port, rules, context=None):
        self.port, self._target, self._rules, self._context = port, target_port, rules, context
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gate", daemon=True)
        self._thread.start()
        self._server = None
        self.visitors = set()
        self.entered = 0
        self.overstayed = 0  # were thrown out when their time was over
        self._tasks = set()

    def open(self):
        self._do(self._open())

    def shut(self):
        self._do(self._shut())

    def close(self):
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def throw_out(self, client_id):
        """End a client's connection, without a word."""

        async def do():
            for visitor in list(self.visitors):
                if visitor.entrance.client_id == client_id:
                    visitor.close()

        self._do(do())

    def _overstayed(self, visitor):
        self.overstayed += 1
        visitor.close()

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _open(self):
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._context
        )

    async def _shut(self):
        if self._server is not None:
            self._server.close()
            self._server = None
        for visitor in list(self.visitors):
            visitor.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._served(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _served(self, reader, writer):
        head, body = await _packet(reader)
        if head & 0xF0 != CONNECT:
            return
        visitor = Visitor(_entrance(body, writer), writer)
        try:
            stays_s = self._rules.entered(visitor)
        except RefusedConnection as refused:
            writer.write(packet(CONNACK, bytes([0, refused.code])))
            await writer.drain()
            writer.close()
            await asyncio.sleep(0.05)
            return
        for other in list(self.visitors):  # one connection for each identity
            if other.entrance.client_id == visitor.entrance.client_id:
                other.close()
        self.visitors.add(visitor)
        self.entered += 1
        timer = None
        if stays_s is not None:
            timer = self._loop.call_later(max(0.0, stays_s), self._overstayed, visitor)
        far_reader = far_writer = None
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            far_writer.write(packet(head, body))
            pumps = [
                asyncio.ensure_future(self._up(visitor, reader, far_writer)),
                asyncio.ensure_future(self._down(visitor, far_reader, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            if timer is not None:
                timer.cancel()
            if far_writer is not None:
                far_writer.close()
            self.visitors.discard(visitor)
            self._rules.left(visitor)

    async def _up(self, visitor, reader, far):
        with contextlib.suppress(BrokenRule):
            while True:
                head, body = await _packet(reader)
                kind = head & 0xF0
                if kind == PUBLISH:
                    topic, mid, payload = _published(head, body)
                    qos, retain = head >> 1 & 3, bool(head & 1)
                    if not self._rules.published(visitor, topic, payload, qos, retain):
                        if mid:
                            visitor.writer.write(packet(PUBACK, mid))
                        continue
                elif kind == SUBSCRIBE:
                    head, body = self._subscribe(visitor, head, body)
                    if body is None:
                        continue
                elif kind == PUBACK and not self._rules.acked(visitor, body[:2]):
                    continue
                far.write(packet(head, body))
                await far.drain()

    def _subscribe(self, visitor, head, body):
        mid, at, allowed, kept = body[:2], 2, [], b""
        while at < len(body):
            size = struct.unpack_from("!H", body, at)[0]
            topic = body[at + 2 : at + 2 + size].decode()
            qos = body[at + 2 + size]
            ok = self._rules.allows(visitor, topic, qos)
            allowed.append((topic, ok))
            if ok:
                visitor.filters.add(topic)
                kept += body[at : at + 2 + size] + bytes([min(qos, 1)])
            at += 3 + size
        if not kept:
            visitor.writer.write(packet(SUBACK, mid + b"\x80" * len(allowed)))
            return head, None
        visitor.partly[mid] = allowed
        return head, mid + kept

    async def _down(self, visitor, far, writer):
        while True:
            head, body = await _packet(far)
            kind = head & 0xF0
            if kind == SUBACK and body[:2] in visitor.partly:
                codes = iter(body[2:])
                allowed = visitor.partly.pop(body[:2])
                body = body[:2] + bytes(next(codes) if ok else 0x80 for _, ok in allowed)
                visitor.heard.update(topic for topic, ok in allowed if ok)
            packets = [packet(head, body)]
            if kind == PUBLISH:
                packets = self._rules.down(visitor, head, body)
            for one in packets:
                writer.write(one)
            await writer.drain()


async def _packet(reader):
    head = (await reader.readexactly(1))[0]
    size, shift = 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return head, await reader.readexactly(size)


def _published(head, body):
    size = struct.unpack_from("!H", body)[0]
    topic, at = body[2 : 2 + size].decode(), 2 + size
    mid = b""
    if head & 0x06:
        mid, at = body[at : at + 2], at + 2
    return topic, mid, body[at:]


def _entrance(body, writer):
    level, flags = body[6], body[7]
    keepalive_s = struct.unpack_from("!H", body, 8)[0]
    at = 10

    def text():
        nonlocal at
        size = struct.unpack_from("!H", body, at)[0]
        found = body[at + 2 : at + 2 + size]
        at += 2 + size
        return found

    client_id = text().decode()
    will = None
    if flags & 0x04:
        will = (text().decode(), text(), flags >> 3 & 3, bool(flags & 0x20))
    username = text().decode() if flags & 0x80 else ""
    password = text().decode() if flags & 0x40 else ""
    peer = writer.get_extra_info("peercert") or {}
    tls = writer.get_extra_info("ssl_object") is not None
    return Entrance(
        level, client_id, username, password, bool(flags & 2), keepalive_s, will, tls, peer
    )
