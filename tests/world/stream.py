"""A steady stream of numbered readings from a few sensors, and the count of what became of them.

Reading n comes from sensor n mod SENSORS with the event time BASE + n, so what a consumer of scores
holds tells which readings were lost, scored twice, or scored out of order.
"""

import json
import threading
import time
from typing import Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.world.site import Books
from tests.world.waiting import eventually

BASE = 1_700_000_000
SENSORS = 4
FEATURES = 8
TICK_S = 0.005
INFLIGHT_MAX = 2000


class Stream:
    """Publishes at `rate` readings/s from entering to leaving the context.

    Args:
        port: of the broker on this machine.
        rate: readings per second.
        qos: 0 or 1.
    """

    def __init__(self, port: int, rate: float, *, qos: int = 1) -> None:
        self.sent = 0
        self._qos = qos
        self._port = port
        self._rate = rate
        self._began = 0.0
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "sensors", protocol=mqtt.MQTTv5)
        self._client.max_queued_messages_set(0)
        self._client.max_inflight_messages_set(INFLIGHT_MAX)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sensors")

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        eventually(self._client.is_connected, 10)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Publish no more; returns how many readings the broker has taken.  Idempotent."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            self._client.disconnect()
            self._client.loop_stop()
        return self.sent

    def due(self, n: int) -> float:
        """When reading `n` is sent, or was (monotonic)."""
        return self._began + (n + 1) / self._rate

    def _run(self) -> None:
        self._began = time.monotonic()
        while not self._over.wait(TICK_S):
            due = int((time.monotonic() - self._began) * self._rate)
            for n in range(self.sent, due):
                self._client.publish(f"plant/p{n % SENSORS}", reading(n), qos=self._qos)
            self.sent = max(self.sent, due)
        eventually(lambda: not self._client._out_messages, 120, "the broker has every reading")


def reading(n: int) -> bytes:
    """Reading `n` as JSON."""
    features = {f"f{i}": ((n * 7 + i * 3) % 20) / 10 - 1 for i in range(FEATURES)}
    return json.dumps({"ts": BASE + n, **features}).encode()


def accounted(books: Books, sent: int, *, whole: bool = True) -> dict[str, int]:
    """How readings 0 to `sent` - 1 fared: lost, repeated and disordered by sensor; all 0 is right.

    `seq` itself must have no gap, and nothing may be said twice in two ways.
    """
    if whole:
        books.check()
    order = [round(books.rows[seq][1]) - BASE for seq in sorted(books.rows)]
    last: dict[str, int] = {}
    disordered = 0
    for seq in sorted(books.rows):
        key, when = books.rows[seq][:2]
        disordered += when < last.get(key, 0)
        last[key] = when
    return {
        "lost": len(set(range(sent)) - set(order)),
        "repeated": len(order) - len(set(order)),
        "disordered": disordered,
    }
