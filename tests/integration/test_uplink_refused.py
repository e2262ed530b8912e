"""The uplink against a broker that says no: nothing is forgotten that it did not take (F10)."""

import asyncio
import struct
from collections import Counter

import pytest

from agent.adapters.mqtt.link import MqttLink
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.config import Mqtt
from agent.ports import Entry, Record
from agent.runtime.uplink import WINDOW, Uplink
from tests.world.hostile import DISCONNECT, PUBLISH, Hostile, packet
from tests.world.waiting import eventually_async

RECORDS = 40
TOO_LARGE = 0x95  # no answer to one message: the broker says it and hangs up
ILLEGAL = 0x195  # but some do give it as one
NEVER = (0x87, 0x90, 0x99, TOO_LARGE, ILLEGAL)  # not authorised, bad topic, bad payload
LARGE = {7, 8, 30}
NOT_NOW = (0x80, 0x83, 0x97, 0xEE)  # unspecified, implementation specific, quota, no such one


def letter(gap):
    return Record("gap", b"%d %d" % (gap.first_seq, gap.last_seq), priority=0)


class Refusing:
    """A broker that answers each record as `code` says, given its number and how often it came."""

    def __init__(self, code, *, receive_max=0):
        self.code, self.receive_max = code, receive_max
        self.came, self.taken, self.gone = Counter(), [], Counter()
        self.most = 0

    def __call__(self, wire, _number):
        most = struct.pack("!BH", 0x21, self.receive_max) if self.receive_max else b""
        wire.let_in(properties=most)
        waiting = []
        while True:
            if not waiting:
                waiting.append(wire.until(PUBLISH))
            waiting += self._more(wire)
            self.most = max(self.most, len(waiting))
            for body in waiting:
                self._answer(wire, body)
            waiting.clear()

    def _more(self, wire):
        """What else comes before anything is answered."""
        found = []
        wire.sock.settimeout(0.05)
        try:
            while True:
                found.append(wire.until(PUBLISH))
        except TimeoutError:
            return found
        finally:
            wire.sock.settimeout(None)

    def _answer(self, wire, body):
        at = 2 + struct.unpack_from("!H", body)[0]
        topic, payload = body[2:at], body[at + 3 :]  # packet id, no properties
        if topic == b"gap":
            first, last = map(int, payload.split())
            self.gone.update(range(first, last + 1))
            wire.puback(body)
            return
        number = int(payload.rstrip(b"\0"))
        self.came[number] += 1
        code = self.code(number, self.came[number])
        if code == 0:
            self.taken.append(number)
        if code == TOO_LARGE:
            wire.send(packet(DISCONNECT, bytes([code, 0])))
            raise ConnectionResetError
        wire.puback(body, code & 0xFF)


def sent(tmp_path, broker, done, records=RECORDS):
    """Have the uplink send records to the broker until `done(box)`; what the outbox then says."""

    async def main(box, url):
        link = MqttLink(Mqtt(url=url, reconnect_s_max=1), client_id="d")
        tasks = [asyncio.create_task(link.run())]
        tasks.append(asyncio.create_task(Uplink(box, link, letter).run()))
        try:
            await eventually_async(lambda: done(box), 15)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    database = Database(tmp_path / "agent.db")
    box = SqliteOutbox(database, 2**20)
    try:
        bodies = [b"%d" % n + bytes(100 if n in LARGE else 0) for n in range(records)]
        box.add(Entry([Record("t", body, 1, 1, "s", "m", n) for n, body in enumerate(bodies)]))
        database.call(lambda _: None)
        with Hostile(broker) as hostile:
            asyncio.run(main(box, hostile.url))
        database.call(lambda _: None)
        return dict(box.depth())
    finally:
        database.close()
        box.close()


@pytest.mark.parametrize("code", NOT_NOW, ids=hex)
def test_what_the_broker_does_not_take_now_is_kept_and_sent_again(tmp_path, code):
    """[delivery-2.1]"""
    broker = Refusing(lambda number, times: code if number % 5 == 3 and times < 3 else 0)
    depth = sent(tmp_path, broker, lambda box: not box.depth()["records"])
    assert Counter(broker.taken) == Counter(range(RECORDS)), "each taken once"
    assert not broker.gone
    assert depth == {"records": 0, "bytes": 0, "gaps": 0, "dead_letters": 0}


def test_not_one_row_is_forgotten_while_the_broker_takes_none(tmp_path):
    """[delivery-2.1]"""
    broker = Refusing(lambda _number, _times: 0x97)
    depth = sent(tmp_path, broker, lambda _: broker.came[0] >= 3)
    assert broker.taken == []
    assert (depth["records"], depth["gaps"], depth["dead_letters"]) == (RECORDS, 0, 0)


@pytest.mark.parametrize("code", NEVER, ids=hex)
def test_what_the_broker_will_never_take_is_a_dead_letter_and_a_gap_and_holds_up_nothing(
    tmp_path, code
):
    """[delivery-2.5]"""
    broker = Refusing(lambda number, _times: code if number in LARGE else 0)
    depth = sent(tmp_path, broker, lambda box: not box.depth()["records"] and len(broker.gone) == 3)
    assert Counter(broker.taken) == Counter(n for n in range(RECORDS) if n not in LARGE)
    assert broker.gone == Counter(LARGE)
    assert depth == {"records": 0, "bytes": 0, "gaps": 3, "dead_letters": 3}


@pytest.mark.parametrize("receive_max", [0, 1, 5])
def test_no_more_is_under_way_than_the_broker_receives(tmp_path, receive_max):
    """[delivery-2.9]"""
    broker = Refusing(lambda _number, _times: 0, receive_max=receive_max)
    sent(tmp_path, broker, lambda box: not box.depth()["records"], records=20)
    assert broker.taken == list(range(20))
    assert broker.most == (receive_max or WINDOW)
