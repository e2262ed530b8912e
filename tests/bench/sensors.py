"""Sensors at C speed, as a process: packets encoded beforehand, one `sendall` a tick.

    python -m tests.bench.sensors URL QOS RATE NUMBER [READINGS]

RATE is messages a second, 0 for as fast as the socket and the window take them; NUMBER is messages
in all; READINGS is how many each holds.  A reading is flat JSON with 8 features and the wall time
at which it was sent, so that whoever receives a score can tell how old it is.  Says "ready", waits
for a line, and ends with the monotonic time of its last message.
"""

import sys
import threading
import time

from tests.world.blaster import Blaster

TOPICS = [b"plant/p%d" % i for i in range(16)]
STAMP = b"1700000000.000000"
TICK_S = 0.002
WINDOW = 4000  # messages of QoS 1 under way
FLOOD = 500  # messages a write, where there is no rate
PUBACK_BYTES = 4  # of MQTT 3.1.1


def reading(n: int) -> bytes:
    """One of many, with a place for the time."""
    values = ",".join(f'"f{i}":{((n * 7 + i * 3) % 200) / 100 - 1:.2f}' for i in range(8))
    return b'{"ts":%s,%s}' % (STAMP, values.encode())


class Sensors(Blaster):
    """Publishes ticks; with QoS 1 keeps to a window."""

    def __init__(self, url: str, qos: int) -> None:
        super().__init__(url, version=4, client_id="sensors")
        self._qos = qos
        self._acked = 0
        self._room = threading.Condition()
        if qos:
            threading.Thread(target=self._take_all_acks, daemon=True).start()

    def _take_all_acks(self) -> None:
        got = 0
        while more := self._sock.recv(1 << 16):
            got += len(more)
            with self._room:
                self._acked = got // PUBACK_BYTES
                self._room.notify()

    def run(self, rate: float, number: int, readings: int) -> float:
        """Send `number` messages; returns the monotonic time of the last."""
        tick = max(1, round(rate * TICK_S)) if rate else max(1, FLOOD // readings)
        payloads = [_message(i, readings) for i in range(tick)]
        block = self.encode(TOPICS, payloads, qos=self._qos)
        began, sent = time.monotonic(), 0
        while sent < number:
            if rate:
                time.sleep(max(0.0, began + sent / rate - time.monotonic()))
            self._acked_up_to(sent - WINDOW)
            self.send(block.replace(STAMP, b"%.6f" % time.time()))
            sent += tick
        last = time.monotonic()
        self._acked_up_to(sent)
        return last

    def _acked_up_to(self, number: int) -> None:
        if self._qos:
            with self._room:
                self._room.wait_for(lambda: self._acked >= number, 60)


def _message(i: int, readings: int) -> bytes:
    if readings == 1:
        return reading(i)
    return b"[" + b",".join(reading(i * readings + n) for n in range(readings)) + b"]"


def main() -> None:
    url, qos, rate, number, *more = sys.argv[1:]
    with Sensors(url, int(qos)) as sensors:
        print("ready", flush=True)
        sys.stdin.readline()
        last = sensors.run(float(rate), int(number), int(more[0]) if more else 1)
        print(last, flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
