"""A day without a link at ten rows a second: it fits, in little memory, and is soon sent; and what
does not fit where there is less room is told, to the row.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.world.offline import GAPS, TOPIC
from tests.world.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
DAY_ROWS = 864_000  # 24 h at 10 a second
OUTBOX_MB = 64.0  # as it comes
GROWN_MB_MAX = 10.0
DRAIN_ROWS_S_MIN = 20_000


class Consumer:
    """Counts how often each row and each row of a gap has come."""

    def __init__(self, broker, rows):
        self.seen, self.gone = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self.gaps, self.in_order, self._next = {}, True, 0
        self._lock = threading.Lock()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "consumer", protocol=mqtt.MQTTv5)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", broker.port)
        self._client.subscribe([(TOPIC, 1), (GAPS, 1)])
        self._client.loop_start()

    def _take(self, _client, _userdata, message):
        told = json.loads(message.payload)
        with self._lock:
            if message.topic == GAPS:
                ident, first, last, rows = told
                assert rows == last - first + 1
                self.gaps[ident] = (first, last)
                return
            first, rows = told["seq"], len(told["key"])
            assert told["key"] == [f"pump-{n % 50}" for n in range(first, first + rows)]
            self.seen[first : first + rows] += 1
            self.in_order &= first >= self._next
            self._next = first + rows

    def all(self):
        """Rows that came or are told as gone, each once; None while some are not."""
        with self._lock:
            self.gone[:] = 0
            for first, last in self.gaps.values():
                self.gone[first : last + 1] += 1
            there = self.seen + self.gone
            return there.all() and bool((there == 1).all())

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


def offline(broker, folder, rows, outbox_mb):
    """How it went: what the process said before and after, and the consumer."""
    command = [sys.executable, "-m", "tests.world.offline", broker.url, folder]
    child = subprocess.Popen(
        [*map(str, command), str(rows), str(outbox_mb)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    consumer = Consumer(broker, rows)
    try:
        filled = next(json.loads(line) for line in child.stdout if line.startswith("{"))
        child.stdin.write("go\n")
        child.stdin.flush()
        drained = next(json.loads(line) for line in child.stdout if line.startswith("{"))
        assert child.wait(10) == 0
        eventually(consumer.all, 20, "each row once, or in one gap")
    finally:
        consumer.close()
        child.kill()
        child.communicate()
    rate = consumer.seen.sum() / drained["drain_s"]
    print(
        f"{rows} rows, outbox {outbox_mb:g} MB: {filled['bytes'] / 2**20:.1f} MB in"
        f" {filled['records']} records, {drained['gaps']} rows in {len(consumer.gaps)} gaps;"
        f" memory grew by {filled['grown_mb']:.1f} MB to {filled['rss_mb']:.0f}; taken at"
        f" {rows / filled['fill_s']:.0f} rows/s, drained at {rate:.0f} rows/s"
    )
    assert consumer.in_order
    assert consumer.gone.sum() == drained["gaps"]
    assert filled["grown_mb"] <= GROWN_MB_MAX
    return filled, rate


def test_hours_without_a_link_fit_and_are_soon_sent(broker, tmp_path):
    """[delivery-2.7] [delivery-2.8]"""
    filled, _ = offline(broker, tmp_path, DAY_ROWS // 20, OUTBOX_MB / 8)
    assert filled["gaps"] == 0


def test_what_does_not_fit_is_told_to_the_row(broker, tmp_path):
    """[delivery-2.4]"""
    filled, _ = offline(broker, tmp_path, DAY_ROWS // 40, OUTBOX_MB / 64)
    assert filled["gaps"] > 0


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_day_without_a_link_fits_and_is_soon_sent(broker, tmp_path):
    filled, rate = offline(broker, tmp_path, DAY_ROWS, OUTBOX_MB)
    assert filled["gaps"] == 0
    assert rate >= DRAIN_ROWS_S_MIN


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_of_a_day_without_a_link_what_does_not_fit_is_told_to_the_row(broker, tmp_path):
    filled, _ = offline(broker, tmp_path, DAY_ROWS, OUTBOX_MB / 4)
    assert filled["gaps"] > 0
