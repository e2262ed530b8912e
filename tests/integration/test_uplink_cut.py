"""Messages larger than the broker takes are cut by rows: it says so before, refuses each, or hangs
up on them.
"""

import asyncio
import json
import struct
from collections import Counter

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.adapters.mqtt.link import MqttLink
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.config import Mqtt
from agent.core.scores import ScoreColumns, encode
from agent.ports import Entry, Record
from agent.runtime.uplink import Uplink
from tests.world.broker import Broker
from tests.world.hostile import DISCONNECT, PUBLISH, Hostile, packet
from tests.world.waiting import eventually, eventually_async

BYTES_MAX = 4096
TOO_LARGE = 0x95
ROWS = (1, 1000, 3, 700, 2, 2)


def records():
    made, first = [], 0
    for rows in ROWS:
        body = encode(
            model="m",
            release=1,
            stream="s",
            epoch=1,
            seq=first,
            keys=["p"] * rows,
            times=np.arange(first, first + rows, dtype=float),
            columns=ScoreColumns(np.ones(rows, np.float32)),
        )
        made.append(Record("t", body, 1, rows, "s", "m", first))
        first += rows
    return made


def carried(tmp_path, url, done):
    """Have the uplink send the records until `done(box)`; what the outbox then says."""

    async def main(box):
        link = MqttLink(Mqtt(url=url, reconnect_s_max=1), client_id="d")
        uplink = Uplink(box, link, lambda gap: Record("gap", b"%d" % gap.rows, priority=0))
        tasks = [asyncio.create_task(one.run()) for one in (link, uplink)]
        try:
            await eventually_async(lambda: done(box), 20)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    database = Database(tmp_path / "agent.db")
    box = SqliteOutbox(database, 2**20)
    try:
        box.add(Entry(records()))
        database.call(lambda _: None)
        asyncio.run(main(box))
        database.call(lambda _: None)
        return dict(box.depth())
    finally:
        database.close()
        box.close()


def rows_of(payload):
    document = json.loads(payload)
    rows = range(document["seq"], document["seq"] + len(document["key"]))
    assert document["time"] == list(rows)
    return rows


class Narrow:
    """A broker that takes at most BYTES_MAX, and says so in its `way`."""

    def __init__(self, way):
        self.way, self.rows, self.refused = way, Counter(), 0

    def __call__(self, wire, _number):
        told = struct.pack("!BI", 0x27, BYTES_MAX) if self.way == "announced" else b""
        wire.let_in(properties=told)
        while True:
            body = wire.until(PUBLISH)
            if len(body) + 5 <= BYTES_MAX:
                self.rows.update(rows_of(body[2 + struct.unpack_from("!H", body)[0] + 3 :]))
                wire.puback(body)
                continue
            self.refused += 1
            if self.way == "puback":
                wire.puback(body, TOO_LARGE)
                continue
            wire.send(packet(DISCONNECT, bytes([TOO_LARGE, 0])))
            wire.until(DISCONNECT)  # until it goes: who closes on unread bytes unsays what he sent


@pytest.mark.parametrize("way", ["announced", "puback", "disconnect"])
def test_what_is_too_large_for_the_broker_is_cut_by_rows_and_arrives_whole(tmp_path, way):
    """[delivery-2.12]"""
    broker = Narrow(way)
    with Hostile(broker) as hostile:
        depth = carried(tmp_path, hostile.url, lambda box: not box.depth()["records"])
        print(f"{way}: {broker.refused} refused, {hostile.connections} connections")
    assert set(broker.rows) == set(range(sum(ROWS)))
    assert depth == {"records": 0, "bytes": 0, "gaps": 0, "dead_letters": 0}
    if way != "disconnect":  # what was on its way as the link fell comes again
        assert set(broker.rows.values()) == {1}
    assert broker.refused <= 8, "learnt, and not found out for each"


def test_a_mosquitto_with_small_packets_gets_all_of_it(tmp_path):
    """[delivery-2.12]"""
    rows = Counter()
    with Broker(extra=[f"max_packet_size {BYTES_MAX}"]) as broker:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.on_message = lambda _c, _u, message: rows.update(rows_of(message.payload))
        client.connect("127.0.0.1", broker.port)
        client.subscribe("t", 1)
        client.loop_start()
        try:
            eventually(client.is_connected, 10)
            depth = carried(tmp_path, broker.url, lambda box: not box.depth()["records"])
            eventually(lambda: len(rows) == sum(ROWS), 10)
        finally:
            client.disconnect()
            client.loop_stop()
    assert set(rows.values()) == {1}
    assert depth == {"records": 0, "bytes": 0, "gaps": 0, "dead_letters": 0}
