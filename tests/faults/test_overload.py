"""Ten times more readings than the model can score: the agent stays healthy and counts them all."""

import time

import psutil
import pytest

from tests.world import zoo
from tests.world.broker import Broker
from tests.world.site import Site
from tests.world.stream import Stream
from tests.world.waiting import eventually

RSS_MB_MORE_MAX = 64


def flood(tmp_path, policy, *, seconds, rate):
    stream = {
        "name": "s",
        "topic": "plant/+",
        "key": "{1}",
        "time": "ts",
        "on_overload": policy,
        "batch": {"rows_max": 1},
    }
    with Broker() as broker, Site(broker, tmp_path, streams=[stream]) as site:
        site.start()
        site.deploy(zoo.big(tmp_path / "v1", size_mb=64, name="m"))
        agent = psutil.Process(site.process.pid)
        began, rss = agent.memory_info().rss, 0
        with Stream(broker.port, rate) as readings:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.5)
                assert site.state()["live"]
                rss = max(rss, agent.memory_info().rss)
            scored = site.model("m")["counts"]["scored"]
            sent = readings.stop()
        eventually(
            lambda: (c := site.model("m").get("counts")) and c["in"] == sent and not c["pending"],
            120,
            f"{sent} counted; {site.model('m')}",
        )
        counts = site.model("m")["counts"]
        given_up = counts["rejected"].get("overload", 0)
        more_mb = (rss - began) / 2**20
        print(
            f"{policy}: {sent} readings in {seconds} s at {sent / seconds:.0f}/s, "
            f"{scored / seconds:.0f}/s scored ({sent / max(scored, 1):.1f} x): "
            f"{counts['scored']} scored, {given_up} given up, 0 expired; RSS +{more_mb:.0f} MiB"
        )
        assert counts["scored"] + given_up == counts["in"] == sent, counts
        assert set(counts["rejected"]) <= {"overload"}
        assert more_mb < RSS_MB_MORE_MAX
        assert site.scored("m", counts["scored"]).check() == counts["scored"]
        assert bool(given_up) == (policy != "block")
    return counts


@pytest.mark.parametrize("policy", ["drop_oldest", pytest.param("sample", marks=pytest.mark.soak)])
def test_a_flood_of_seconds_leaves_the_agent_healthy_and_the_count_exact(tmp_path, policy):
    """[delivery-6.3]"""
    flood(tmp_path, policy, seconds=4, rate=4000)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", ["block", "drop_oldest", "sample"])
def test_a_flood_of_a_minute_leaves_the_agent_healthy_and_the_count_exact(tmp_path, policy):
    flood(tmp_path, policy, seconds=60, rate=2000)
