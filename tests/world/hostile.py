"""A tiny MQTT broker that does what a script says, for what no well-behaved broker would do."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x30, 0x40, 0x80, 0x90
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = 0xA0, 0xB0, 0xC0, 0xD0, 0xE0


def varint(number: int) -> bytes:
    out = b""
    while True:
        number, low = divmod(number, 128)
        out += bytes([low | (128 if number else 0)])
        if not number:
            return out


def packet(head: int, body: bytes) -> bytes:
    return bytes([head]) + varint(len(body)) + body


def publish(
    topic: bytes,
    payload: bytes,
    *,
    mid: int = 0,
    dup: bool = False,
    retain: bool = False,
    properties: bytes | None = b"",
) -> bytes:
    """A PUBLISH; QoS 1 if it has a packet id; MQTT 3.1.1 if `properties` is None."""
    head = PUBLISH | (0x02 if mid else 0) | (0x08 if dup else 0) | retain
    body = struct.pack("!H", len(topic)) + topic + (struct.pack("!H", mid) if mid else b"")
    if properties is not None:
        body += varint(len(properties)) + properties
    return packet(head, body + payload)


class Wire:
    """One client's connection, as a script sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.is_v5 = True

    def packet(self) -> tuple[int, bytes]:
        """The next packet from the client."""
        head = self._exactly(1)[0]
        size, shift = 0, 0
        while True:
            byte = self._exactly(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return head, self._exactly(size)

    def until(self, kind: int) -> bytes:
        """The body of the next packet of this kind; pings are answered on the way."""
        while True:
            head, body = self.packet()
            if head & 0xF0 == kind:
                return body
            if head & 0xF0 == PINGREQ:
                self.send(packet(PINGRESP, b""))

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def let_in(self, *, session: bool = False, code: int = 0, properties: bytes = b"") -> bytes:
        """Take CONNECT and answer it; returns CONNECT's body."""
        body = self.until(CONNECT)
        self.is_v5 = body[6] == 5
        answer = bytes([session, code])
        if self.is_v5:
            answer += varint(len(properties)) + properties
        self.send(packet(CONNACK, answer))
        return body

    def subscribed(self, *codes: int) -> bytes:
        """Take SUBSCRIBE and answer it with these codes (one filter granted at QoS 1)."""
        body = self.until(SUBSCRIBE)
        answer = body[:2] + (b"\0" if self.is_v5 else b"")
        self.send(packet(SUBACK, answer + bytes(codes or (1,))))
        return body

    def puback(self, published: bytes, code: int = 0) -> None:
        """Acknowledge a QoS 1 PUBLISH, given its body."""
        at = 2 + struct.unpack_from("!H", published)[0]
        mid = published[at : at + 2]
        self.send(packet(PUBACK, mid + (bytes([code, 0]) if code else b"")))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise ConnectionResetError("the client hung up")
            data += more
        return data


class Hostile:
    """Listens on a free port and runs `script(wire, number)` for each connection, from 1.

    The connection is closed when its script returns.  What a script raises, other than that the
    client hung up, is raised again at the end of the `with` block.
    """

    def __init__(self, script: Callable[[Wire, int], None]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.connections = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._raised: list[BaseException] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)
        if self._raised and exc[0] is None:
            raise self._raised[0]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(sock)
            self._start(self._serve, sock, self.connections)

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            self._script(Wire(sock), number)
        except OSError:
            pass
        except BaseException as error:
            self._raised.append(error)
        finally:
            sock.close()

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()
