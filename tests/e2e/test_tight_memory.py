"""Where memory is tight the active version makes way, and no reading is lost for it."""

import threading
import time

import psutil
import pytest

from tests.world import wild, zoo
from tests.world.site import Site
from tests.world.stream import Stream, accounted
from tests.world.waiting import eventually

RATE = 300.0
TIGHT = {"runtime": {"memory": "tight"}}


@pytest.fixture
def site(broker, tmp_path):
    with Site(broker, tmp_path) as site:
        yield site.start()


class Workers:
    """The most workers the agent had at once while this was entered, seen every few ms."""

    def __init__(self, site):
        self.most = 0
        self._agent = psutil.Process(site.process.pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="workers")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while not self._over.wait(0.005):
            self.most = max(self.most, len(self._agent.children()))


def test_the_active_version_makes_way_and_what_comes_meanwhile_is_scored(site, tmp_path):
    """[rollout-9.4]"""
    first = site.deploy(zoo.mlp(tmp_path / "v1", name="m", **TIGHT))
    with Stream(int(site.broker.url.rsplit(":", 1)[1]), RATE) as stream:
        site.scored("m", 100)
        second = site.add(zoo.mlp(tmp_path / "v2", bias=1.0, name="m", **TIGHT))
        with Workers(site) as workers:
            site.desire("m", second, rollout={"shadow": {"windows": 50}})
            site.committed("m", second)
        time.sleep(0.3)
        sent = stream.stop()
    books = site.scored("m", sent)
    assert accounted(books, sent) == {"lost": 0, "repeated": 0, "disordered": 0}
    assert workers.most == 1
    releases = [books.rows[seq][3] for seq in sorted(books.rows)]
    assert releases == sorted(releases)
    assert set(releases) == {first, second}
    receipt = eventually(
        lambda: [e["receipt"] for e in site.events if e["type"] == "swap"][1:], 20
    )[0]
    assert receipt["gap"] == receipt["duplicates"] == 0


def test_a_candidate_that_fails_in_its_place_brings_the_active_version_back(site, tmp_path):
    """[rollout-9.5]"""
    first = site.deploy(zoo.mlp(tmp_path / "v1", name="m", **TIGHT))
    with Stream(int(site.broker.url.rsplit(":", 1)[1]), RATE) as stream:
        site.scored("m", 100)
        bad = site.add(wild.wrong_golden(tmp_path / "v2", name="m", **TIGHT), again=False)
        site.desire("m", bad)
        model = site.settled("m")
        sent = stream.stop()
    assert model["active"]["release"] == first
    assert "golden" in model["why"]
    books = site.scored("m", sent)
    assert accounted(books, sent) == {"lost": 0, "repeated": 0, "disordered": 0}
    assert {row[3] for row in books.rows.values()} == {first}
    eventually(lambda: site.model("m")["state"] == "Healthy", 10)


def test_other_windows_in_its_place_lose_only_what_was_open(site, tmp_path):
    """[rollout-9.4]"""
    site.deploy(zoo.cnn(tmp_path / "v1", length=8, name="m", **TIGHT))
    with Stream(int(site.broker.url.rsplit(":", 1)[1]), RATE) as stream:
        site.scored("m", 50)
        second = site.add(zoo.cnn(tmp_path / "v2", length=4, name="m", **TIGHT))
        site.desire("m", second)
        site.committed("m", second)
        time.sleep(0.3)
        sent = stream.stop()
    eventually(lambda: site.model("m")["counts"]["in"] == sent, 20)
    counts = eventually(lambda: (c := site.model("m")["counts"])["pending"] <= 4 * 3 and c, 20)
    assert counts["expired"] <= 4 * 7  # one open window of each sensor
    assert counts["scored"] + counts["expired"] + counts["pending"] == sent
    site.book("m").check()
