"""Open windows and carried state outlive the process, stopped in order or killed at any instant."""

import random
import time

import pytest

from tests.world import zoo
from tests.world.site import Site
from tests.world.stream import BASE, FEATURES, SENSORS, Stream
from tests.world.waiting import eventually

RATE = 500.0
LENGTH = 50  # readings in a window: most of the time each sensor has one open
WINDOW = {"kind": "tumbling", "size": str(LENGTH)}


@pytest.fixture
def site(broker, tmp_path):
    engine = {"deaths_s": 0.001}  # we are to blame for these deaths
    with Site(broker, tmp_path, engine=engine) as site:
        yield site.start()


@pytest.fixture
def dice():
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def check_windows(site, sent):
    """Each sensor's readings are cut into windows as if nothing had happened."""
    whole = sum((sent + SENSORS - 1 - s) // SENSORS // LENGTH for s in range(SENSORS))
    covered = whole * LENGTH
    want = {
        "in": sent,
        "scored": covered,
        "rejected": {},
        "expired": 0,
        "pending": sent - covered,
    }
    eventually(lambda: site.model("m").get("counts") == want, 30, f"{want}; {site.model('m')}")
    books = site.scored("m", whole)
    assert books.check() == whole
    ends = sorted(round(when) - BASE for _, when, _, _ in books.rows.values())
    cut = range((LENGTH - 1) * SENSORS, sent, LENGTH * SENSORS)
    assert ends == sorted(n + s for n in cut for s in range(SENSORS) if n + s < sent)
    return covered, sent - covered


def end_it_often(site, tmp_path, dice, times):
    site.deploy(zoo.cnn(tmp_path / "v1", features=FEATURES, length=LENGTH, name="m"))
    with Stream(site.broker.port, RATE) as stream:
        for n in range(times):
            time.sleep(dice.uniform(0.2, 1.2))
            if n % 2:
                site.kill()
            else:
                site.stop()
            site.start(ready=True)
        sent = stream.stop()
    covered, pending = check_windows(site, sent)
    print(f"{times} ends, {sent} readings: {covered} scored, {pending} in open windows, 0 expired")


def test_open_windows_go_on_through_stops_and_kills(site, tmp_path, dice):
    """[delivery-5.2]"""
    end_it_often(site, tmp_path, dice, 3)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_open_windows_go_on_through_a_hundred_stops_and_kills(site, tmp_path, dice):
    end_it_often(site, tmp_path, dice, 100)


@pytest.mark.parametrize("end", ["kill", pytest.param("stop", marks=pytest.mark.soak)])
def test_carried_state_goes_on_from_the_last_score(site, tmp_path, end):
    """[delivery-5.3] The model adds up what each sensor has sent."""
    site.deploy(zoo.running_sum(tmp_path / "v1", name="m"))

    def send(first, count):
        site.readings(
            [{"ts": BASE + n, "f0": 1.0} for n in range(first, first + count)], topic="plant/p1"
        )
        return site.scored("m", first + count)

    send(0, 20)
    getattr(site, end)()
    site.start(ready=True)
    books = send(20, 20)
    assert books.check() == 40
    assert [books.rows[seq][2] for seq in range(40)] == [float(n + 1) for n in range(40)]
