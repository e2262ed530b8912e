"""Who receives the scores, as a process: counts rows and how old they are, and does nothing else.

    python -m tests.bench.sink URL TOPIC

Says "ready".  To a line with a number of rows it answers, once it has had so many since the last
answer (or nothing has come for five seconds), with one JSON object: rows, began and ended
(monotonic, of the first and the last message), and p50, p99, max in milliseconds.
"""

import json
import selectors
import socket
import struct
import sys
import time
from urllib.parse import urlsplit

import numpy as np
import orjson

from agent.adapters.mqtt.packets import Scan, scan
from tests.world.hostile import CONNACK, CONNECT, SUBACK, SUBSCRIBE, Wire, packet

QUIET_S = 5.0


class Sink:
    """One subscription, QoS 0, MQTT 3.1.1."""

    def __init__(self, url: str, topic: str) -> None:
        parts = urlsplit(url)
        self._sock = socket.create_connection((parts.hostname, parts.port), timeout=30)
        wire = Wire(self._sock)
        wire.send(packet(CONNECT, b"\0\x04MQTT\x04\x02\0\0\0\x04sink"))
        wire.until(CONNACK)
        name = topic.encode()
        wire.send(packet(SUBSCRIBE | 2, b"\0\1" + struct.pack("!H", len(name)) + name + b"\0"))
        wire.until(SUBACK)
        self._rest = b""
        self.forget()

    def forget(self) -> None:
        """Begin to count."""
        self.rows = 0
        self.began = self.ended = 0.0
        self._ages: list[np.ndarray] = []

    def read(self) -> None:
        """Take what has come."""
        data = self._sock.recv(1 << 20)
        now, wall = time.monotonic(), time.time()
        assert data, "the broker hung up"
        found = Scan()
        data = self._rest + data
        taken, _ = scan(data, found, is_v5=False, packet_bytes_max=1 << 26)
        self._rest = data[taken:]
        for payload in found.payloads:
            times = orjson.loads(payload)["time"]
            self.rows += len(times)
            self._ages.append(wall - np.asarray(times))
        if found.payloads:
            self.began = self.began or now
            self.ended = now

    def told(self) -> str:
        """What was counted."""
        ages = np.concatenate(self._ages) * 1e3 if self._ages else np.full(1, np.nan)
        p50, p99, most = (float(q) for q in np.quantile(ages, [0.5, 0.99, 1.0]))
        body = {"rows": self.rows, "began": self.began, "ended": self.ended}
        return json.dumps({**body, "p50": p50, "p99": p99, "max": most})

    def fileno(self) -> int:
        return self._sock.fileno()


def main() -> None:
    sink = Sink(*sys.argv[1:])
    wanted, quiet = 0, 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(sink, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            ready = [key.fileobj for key, _ in selector.select(0.2)]
            if sink in ready:
                sink.read()
                quiet = time.monotonic() + QUIET_S
            if sys.stdin in ready:
                line = sys.stdin.readline()
                if not line:
                    return
                wanted, quiet = int(line), time.monotonic() + 2 * QUIET_S
            if wanted and (sink.rows >= wanted or time.monotonic() > quiet):
                print(sink.told(), flush=True)
                sink.forget()
                wanted = 0


if __name__ == "__main__":
    main()
