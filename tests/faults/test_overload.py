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
RSS_MB_MORE_MAX_BLOCK = 128  # 65,536 rows wait, each by itself, before the stream is left alone
DRAIN_S_MAX = 600.0
TIMES_MIN = 10.0  # what it can score, in a flood of a minute


RUN_MS = 20.0  # of the model, a row: it scores 50 a second at the most
RATE = 600.0


def flood(tmp_path, policy, *, seconds):
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
        site.deploy(zoo.slow(tmp_path / "v1", ms=RUN_MS, name="m"))
        agent = psutil.Process(site.process.pid)
        began, rss = agent.memory_info().rss, 0
        with Stream(broker.port, RATE) as readings:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.5)
                assert eventually(site.state)["live"]
                rss = max(rss, agent.memory_info().rss)
            counts = eventually(lambda: site.model("m")["counts"])
            scored = counts["scored"]
            assert counts["in"] == scored + counts["pending"] + sum(counts["rejected"].values())
            sent = readings.stop()
        if policy == "block":  # or it would go on for ten times as long
            site.stop()
            stream["batch"] = {}
            site.start(ready=True)
        eventually(
            lambda: (c := site.model("m").get("counts")) and c["in"] == sent and not c["pending"],
            DRAIN_S_MAX,
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
        assert more_mb < (RSS_MB_MORE_MAX_BLOCK if policy == "block" else RSS_MB_MORE_MAX)
        assert site.scored("m", counts["scored"]).check() == counts["scored"]
        assert bool(given_up) == (policy != "block")
    return sent / max(scored, 1)


@pytest.mark.parametrize("policy", ["drop_oldest", pytest.param("sample", marks=pytest.mark.soak)])
def test_a_flood_of_seconds_leaves_the_agent_healthy_and_the_count_exact(tmp_path, policy):
    """[delivery-6.3]"""
    flood(tmp_path, policy, seconds=4)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("policy", ["block", "drop_oldest", "sample"])
def test_a_flood_of_a_minute_leaves_the_agent_healthy_and_the_count_exact(tmp_path, policy):
    times = flood(tmp_path, policy, seconds=60)
    assert times >= TIMES_MIN
