"""Publishes as fast as a socket takes it: batches of packets, encoded before they are sent."""

import socket
import struct
import threading
from collections.abc import Iterable, Sequence
from typing import Self
from urllib.parse import urlsplit

from tests.world.hostile import CONNACK, CONNECT, PUBLISH, Wire, packet, varint

BATCH = 5000


class Blaster:
    """An MQTT client that only publishes.  `url` is plain mqtt://; `version` 5 or 4 (3.1.1)."""

    def __init__(self, url: str, *, version: int = 5, client_id: str = "blaster") -> None:
        parts = urlsplit(url)
        self._sock = socket.create_connection((parts.hostname, parts.port), timeout=30)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._properties = b"\0" if version == 5 else b""
        name = client_id.encode()
        body = b"\0\x04MQTT" + bytes([version, 0x02, 0, 60])
        body += self._properties + struct.pack("!H", len(name)) + name
        self._sock.sendall(packet(CONNECT, body))
        try:
            answer = Wire(self._sock).until(CONNACK)
            assert answer[1] == 0, f"the broker refused us: {answer[1]:#x}"
        except BaseException:
            self._sock.close()
            raise

    def encode(
        self, topics: Sequence[bytes], payloads: Iterable[bytes], *, qos: int = 0, first: int = 0
    ) -> bytes:
        """Packets for `payloads`, with the topics in turn."""
        head = bytes([PUBLISH | qos << 1])
        out = []
        for i, payload in enumerate(payloads, first):
            topic = topics[i % len(topics)]
            body = struct.pack("!H", len(topic)) + topic
            if qos:
                body += struct.pack("!H", i % 65535 + 1)
            body += self._properties + payload
            out.append(head + varint(len(body)) + body)
        return b"".join(out)

    def send(self, data: bytes) -> None:
        """Encoded QoS 0 packets."""
        self._sock.sendall(data)

    def send_acked(self, data: bytes, number: int) -> None:
        """Encoded QoS 1 packets; returns once all `number` are acknowledged."""
        failed: list[Exception] = []

        def swallow() -> None:
            try:
                wire = Wire(self._sock)
                for _ in range(number):
                    head, body = wire.packet()
                    assert head == 0x40, f"{head:#x}"
                    # 0x10: taken, and nobody subscribes
                    assert len(body) < 3 or body[2] in (0, 0x10), f"refused: {body[2]:#x}"
            except Exception as error:
                failed.append(error)

        reader = threading.Thread(target=swallow, daemon=True)
        reader.start()
        self._sock.sendall(data)
        reader.join(60)
        assert not failed, failed
        assert not reader.is_alive(), "not all were acknowledged"

    def publish(self, topic: str, payloads: Sequence[bytes], *, qos: int = 1) -> None:
        """Publish in order; with QoS 1 return once the broker has them."""
        for start in range(0, len(payloads), BATCH):
            some = payloads[start : start + BATCH]
            data = self.encode([topic.encode()], some, qos=qos)
            if qos:
                self.send_acked(data, len(some))
            else:
                self.send(data)

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
