"""Several agents share one stream: they join, leave and are killed, and every reading is scored.

The broker gives each message of a shared subscription to one member.  Mosquitto goes on dealing to
members that are away and keeps their part for them, so a member must come back, or say that it
leaves; what was dealt to it is then scored by it and by no other.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
import urllib3
from paho.mqtt.enums import CallbackAPIVersion

from tests.world import zoo
from tests.world.broker import free_port
from tests.world.site import Books
from tests.world.stream import BASE, SENSORS, Stream
from tests.world.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
RATE = 600.0  # readings per second, of all members together
QUIET_S = 1.5  # without a new row, while the others go on: the broker holds nothing more for it


class Member:
    """One agent of the group, with a factory model; its store survives it."""

    def __init__(self, name, port, folder, package):
        self.name, self.books = name, Books()
        self._port, self._folder, self._package = port, folder / name, package
        self._folder.mkdir()
        self._http = free_port()
        self._process = None

    def start(self, *, leaving=False):
        config = self._folder / "agent.toml"
        config.write_text(
            f'[device]\nid = "{self.name}"\n'
            f'[mqtt]\nurl = "mqtt://127.0.0.1:{self._port}"\nreconnect_s_max = 1.0\n'
            f"[store]\ndir = {json.dumps(str(self._folder / 'store'))}\n"
            f'[http]\nbind = "127.0.0.1:{self._http}"\n'
            '[[stream]]\nname = "s"\ntopic = "$share/line/plant/+"\nkey = "{1}"\ntime = "ts"\n'
            f"leaving = {str(leaving).lower()}\n"
            f'[[model]]\nname = "m"\nstream = "s"\npath = {json.dumps(str(self._package))}\n'
        )
        with (self._folder / "agent.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", "--config", config],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )

    def stop(self):
        self._process.terminate()
        assert self._process.wait(20) == 0

    def kill(self):
        self._process.kill()
        self._process.wait(10)

    def leave(self):
        """Out of the group for good: no more is dealt to it, and what had been is scored."""
        self.stop()
        self.start(leaving=True)
        self.listens()
        rows, since = -1, time.monotonic()

        def is_quiet():
            """It can score, nothing waits in it, and for a while nothing more has come."""
            nonlocal rows, since
            now = len(self.books.rows)
            if now != rows or not self._is_done():
                rows, since = now, time.monotonic()
            return rows and time.monotonic() - since > QUIET_S

        eventually(is_quiet, 60, f"{self.name} has scored what was dealt to it")
        self.stop()

    def _is_done(self):
        with contextlib.suppress(urllib3.exceptions.HTTPError, LookupError, TypeError):
            url = f"http://127.0.0.1:{self._http}/state"
            told = urllib3.request("GET", url, timeout=5, retries=False).json()
            return told["models"]["m"]["active"] and not told["models"]["m"]["counts"]["pending"]
        return False

    def listens(self):
        log = self._folder / "agent.log"
        eventually(lambda: b"data_connection_up" in log.read_bytes(), 20, "a subscription")

    def scores_on(self):
        """Wait for new rows from this member."""
        before = len(self.books.rows)
        eventually(lambda: len(self.books.rows) > before, 30, f"new scores of {self.name}")


class Group:
    """Members and one consumer of all their scores."""

    def __init__(self, broker, folder, names):
        package = zoo.mlp(folder / "m", name="m")
        self.broker = broker
        self.members = [Member(name, broker.port, folder, package) for name in names]
        self._by_name = {member.name: member for member in self.members}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "consumer", protocol=mqtt.MQTTv5)
        self._client.on_message = self._on_message

    def __enter__(self):
        self._client.connect("127.0.0.1", self.broker.port)
        self._client.loop_start()
        eventually(self._client.is_connected, 10)
        self._client.subscribe("edge/+/scores/m", 1)
        return self

    def __exit__(self, *_):
        for member in self.members:
            with contextlib.suppress(ProcessLookupError, AttributeError):
                member.kill()
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client, _userdata, message):
        self._by_name[message.topic.split("/")[1]].books.take(json.loads(message.payload))

    def readings(self):
        """The number of every reading scored, as often as it was."""
        return [round(row[1]) - BASE for m in self.members for row in list(m.books.rows.values())]

    def account(self, sent):
        """Readings lost and readings scored more than once, when all is quiet."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: len(set(self.readings())) >= sent, 60)
        for member in self.members:
            member.books.check()
        scored = self.readings()
        return {"lost": sent - len(set(scored)), "twice": len(scored) - len(set(scored))}


def joins_kills_and_leaves(broker, tmp_path, kills):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with Group(broker, tmp_path, ("a", "b", "c")) as group:
        a, b, c = group.members
        a.start()
        a.listens()  # a group exists from its first member on
        with Stream(broker.port, RATE) as stream:
            for member in (b, c):
                member.start()
                member.scores_on()
            for _ in range(kills):
                victim = dice.choice(group.members)
                victim.kill()
                time.sleep(dice.uniform(0, 0.5))
                victim.start()
                victim.scores_on()
            c.leave()
            gone = len(c.books.rows)
            b.scores_on()
            sent = stream.stop()
        found = group.account(sent)
        assert len(c.books.rows) == gone
        assert len({key for m in (a, b) for key, *_ in m.books.rows.values()}) == SENSORS
        return found


def test_members_join_leave_and_are_killed_and_every_reading_is_scored_once(broker, tmp_path):
    """[delivery-4.1] [delivery-4.2]"""
    assert joins_kills_and_leaves(broker, tmp_path, 3) == {"lost": 0, "twice": 0}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_kills_in_a_group_cost_no_reading(broker, tmp_path):
    assert joins_kills_and_leaves(broker, tmp_path, 100) == {"lost": 0, "twice": 0}


def test_what_was_dealt_to_a_member_that_is_away_waits_for_it(broker, tmp_path):
    """[delivery-4.3]"""
    with Group(broker, tmp_path, ("a", "b")) as group:
        a, b = group.members
        for member in (a, b):
            member.start()
            member.listens()
        with Stream(broker.port, RATE) as stream:
            b.scores_on()
            b.stop()
            a.scores_on()
            sent = stream.stop()
        eventually(lambda: len(a.books.rows) >= sent // 2, 20)
        missing = sent - len(set(group.readings()))
        assert missing > 0
        b.start()
        assert group.account(sent) == {"lost": 0, "twice": 0}
