"""Publishes as fast as a socket takes it: batches of packets, encoded before they are sent."""

import socket
import struct
import sys
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
                self._take_acks(number)
            except Exception as error:
                failed.append(error)

        reader = threading.Thread(target=swallow, daemon=True)
        reader.start()
        self._sock.sendall(data)
        reader.join(60)
        assert not failed, failed
        assert not reader.is_alive(), "not all were acknowledged"

    def _take_acks(self, number: int) -> None:
        data = b""
        while number:
            more = self._sock.recv(1 << 16)
            assert more, "the broker hung up"
            data += more
            at = 0
            while at + 2 <= len(data) and at + 2 + data[at + 1] <= len(data):
                size = data[at + 1]
                assert data[at] == 0x40, f"{data[at]:#x}"
                # 0x10: taken, and nobody subscribes
                assert size < 3 or data[at + 4] in (0, 0x10), f"refused: {data[at + 4]:#x}"
                at += 2 + size
                number -= 1
            data = data[at:]

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


def main() -> None:
    """`python -m tests.world.blaster URL VERSION QOS NUMBER`: so that it has a core of its own."""
    url, version, qos, number = sys.argv[1:]
    payload = b'{"ts":1732180000.123,"temp_c":61.25,"vib":{"rms":3.14},"flow":12.5,"id":"%07d"}'
    topics = [b"plant/1/pump/%d/telemetry" % i for i in range(16)]
    with Blaster(url, version=int(version)) as blaster:
        window = 500  # what a publisher has under way; QoS 0 has no such limit
        encoded = [
            blaster.encode(topics, [payload % i for i in range(at, at + window)], qos=int(qos))
            for at in range(0, int(number), window)
        ]
        print("ready", flush=True)
        sys.stdin.readline()
        for data in encoded:
            if int(qos):
                blaster.send_acked(data, window)
            else:
                blaster.send(data)
        print("done", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
