"""kill -9 of a worker and of the agent at random instants: it comes back scoring the right version,
and every reading that the broker still held is scored once.
"""

import random
import time

import psutil
import pytest

from tests.world import zoo
from tests.world.site import Site
from tests.world.stream import Stream, accounted
from tests.world.waiting import eventually

RATE = 1000.0  # readings per second
CLEAN = {"lost": 0, "repeated": 0, "disordered": 0}
NEVER_CONDEMNED = {"deaths_s": 0.001}  # we are to blame for these deaths, not the version


def plant(broker, folder, **batch):
    streams = [{"name": "s", "topic": "plant/+", "key": "{1}", "time": "ts", "batch": batch}]
    return Site(broker, folder, engine=NEVER_CONDEMNED, streams=streams)


@pytest.fixture
def site(broker, tmp_path):
    with plant(broker, tmp_path) as site:
        yield site.start()


@pytest.fixture
def dice():
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def workers(site):
    return psutil.Process(site.process.pid).children(recursive=True)


def check_books(site, sent, model="m"):
    """Every reading is in the consumer's books once, and in the account once."""
    books = site.book(model)
    eventually(
        lambda: len(books.rows) >= sent,
        60,
        f"{sent} rows; {site.model(model)}; books {accounted(books, sent, whole=False)}",
    )
    assert accounted(books, sent) == CLEAN
    want = {"in": sent, "scored": sent, "rejected": {}, "expired": 0, "pending": 0}
    eventually(lambda: site.model(model).get("counts") == want, 10, f"{want}; {site.model(model)}")
    return books


def scoring_again(site, release):
    """Wait until new rows come, of `release`."""
    books = site.book("m")
    before = len(books.rows)
    eventually(lambda: len(books.rows) > before, 30, "scores after the kill")
    eventually(lambda: books.rows[max(books.rows)][3] == release, 10, f"scores of {release}")


def kill_workers(site, tmp_path, dice, times):
    release = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    with Stream(site.broker.port, RATE) as stream:
        for _ in range(times):
            time.sleep(dice.uniform(0, 0.3))
            for worker in workers(site):
                worker.kill()
            scoring_again(site, release)
        sent = stream.stop()
    assert check_books(site, sent).repeated == 0
    assert site.model("m")["active"]["release"] == release


def kill_agents(site, tmp_path, dice, times, models=("m",)):
    """Kills while it starts, while it works off what has piled up, and while all is well."""
    releases = {
        name: site.deploy(zoo.mlp(tmp_path / name, name=name), name=name) for name in models
    }
    with Stream(site.broker.port, RATE) as stream:
        for n in range(times):
            if n % 2:
                time.sleep(dice.uniform(0, 3.0))
            else:
                scoring_again(site, releases["m"])
                time.sleep(dice.uniform(0, 0.5))
            site.kill()
            time.sleep(dice.uniform(0, 0.5))
            site.start()
        scoring_again(site, releases["m"])
        sent = stream.stop()
    for name in models:
        check_books(site, sent, name)
        assert site.model(name)["active"]["release"] == releases[name]


def test_a_killed_agent_repeats_no_part_of_a_burst_that_takes_many_batches(broker, tmp_path, dice):
    with plant(broker, tmp_path, rows_max=32) as site:
        kill_agents(site.start(), tmp_path, dice, 8)


def test_a_killed_agent_repeats_nothing_where_one_model_was_ahead_of_another(
    broker, tmp_path, dice
):
    with plant(broker, tmp_path, rows_max=32) as site:
        kill_agents(site.start(), tmp_path, dice, 8, ("m", "n"))


def test_eight_killed_workers_cost_no_reading(site, tmp_path, dice):
    """[delivery-1.4]"""
    kill_workers(site, tmp_path, dice, 8)


def test_eight_killed_agents_cost_no_reading(site, tmp_path, dice):
    """[delivery-1.3]"""
    kill_agents(site, tmp_path, dice, 8)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_killed_workers_cost_no_reading(site, tmp_path, dice):
    kill_workers(site, tmp_path, dice, 100)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_killed_agents_cost_no_reading(site, tmp_path, dice):
    kill_agents(site, tmp_path, dice, 100)


@pytest.mark.parametrize("phase", ["fetching", "verifying", "preflight", "promoting", "probation"])
def test_a_rollout_ends_as_it_would_have_though_the_agent_is_killed_in(phase, site, tmp_path, dice):
    """The kill comes as soon as the journal has the phase, or a moment later."""
    site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    with Stream(site.broker.port, RATE) as stream:
        release = site.add(zoo.mlp(tmp_path / "v2", bias=1.0, name="m"))
        site.desire("m", release, rollout={"probation": {"windows": 0, "time": "1s"}})
        eventually(lambda: f'"now": "{phase}"' in site.log(), 30, f"the phase {phase}")
        time.sleep(dice.uniform(0, 0.02))
        site.kill()
        site.start()
        site.committed("m", release)
        scoring_again(site, release)
        sent = stream.stop()
    check_books(site, sent)
