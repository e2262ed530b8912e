"""A broker that is restarted again and again, and every other time forgets the agent's session.

The sensors keep what the broker has not acknowledged and send it again, as sensors should; what a
broker took and then forgot is its loss, and shows as a reading that nobody has counted.
"""

import random
import time

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.world import zoo
from tests.world.broker import Broker, free_port
from tests.world.site import DEVICE, Site
from tests.world.stream import BASE, Stream
from tests.world.waiting import eventually

QUIET_S = 3.0


@pytest.fixture
def dice():
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def restart_it_often(tmp_path, dice, *, restarts, readings, rate):
    with Broker(persistent=True) as broker, Site(broker, tmp_path) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        with Stream(broker.port, rate) as stream:
            for n in range(restarts):
                until = readings * (n + 1) // (restarts + 1)
                eventually(lambda until=until: stream.sent >= until, 600, "readings are sent")
                time.sleep(dice.uniform(0, 0.1))
                broker.stop()
                if n % 2:
                    forget(broker, f"{DEVICE}.s")
                time.sleep(dice.uniform(0, 0.5))
                broker.start()
            eventually(lambda: stream.sent >= readings, 600, "readings are sent")
            sent = stream.stop()
        check(site, sent, restarts)


def forget(broker, client_id):
    """Have the stopped broker forget the session of `client_id`, and nobody else's."""
    port, broker.port = broker.port, free_port()
    broker.start()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5)
    client.connect("127.0.0.1", broker.port, clean_start=True)
    client.loop_start()
    eventually(client.is_connected, 10)
    client.disconnect()
    client.loop_stop()
    broker.stop()
    broker.port = port


def check(site, sent, restarts):
    """The account is exact, and every reading counted is in the consumer's books, once."""

    books, since = site.book("m"), {}

    def settled():
        """The counts, once they have agreed with the books for a while: on a busy machine a
        connection may take its time, and more may come behind it.
        """
        counts = site.model("m").get("counts") or {}
        if not counts or counts["pending"] or counts["scored"] != books.first_hand:
            return None
        began = since.setdefault(counts["in"], time.monotonic())
        return counts if time.monotonic() - began >= QUIET_S else None

    counts = eventually(settled, 120, f"it settles; {site.model('m')}, {books.first_hand} arrived")
    assert books.check() == counts["scored"] == counts["in"], counts
    assert not any(event["type"] == "breach" for event in site.events)
    assert site.process.poll() is None
    heard = [round(when) - BASE for _, when, _, _ in books.rows.values()]
    lost = set(range(sent)) - set(heard)
    print(
        f"{restarts} restarts, {sent} readings sent: {counts}; "
        f"{len(lost)} lost by the broker, {len(heard) - len(set(heard))} sent twice by the sensors"
    )
    return lost


def test_the_account_is_exact_though_the_broker_is_restarted_and_forgets_sessions(tmp_path, dice):
    """[delivery-6.2]"""
    restart_it_often(tmp_path, dice, restarts=4, readings=8_000, rate=1500)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_fifty_restarts_in_a_hundred_thousand_readings(tmp_path, dice):
    restart_it_often(tmp_path, dice, restarts=50, readings=100_000, rate=800)
