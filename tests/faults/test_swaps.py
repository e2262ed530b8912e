"""Swap after swap under a live stream: nothing lost, repeated, out of order or left behind."""

import json
import os
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.world import zoo
from tests.world.site import Site
from tests.world.stream import Stream, accounted
from tests.world.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counted in /proc")

RATE = 1000.0  # readings per second
AT_ONCE = {"probation": {"windows": 0, "time": "0s"}}  # the shortest way to a commit
POOL = min(32, (os.cpu_count() or 1) + 4)  # threads that asyncio starts as it first needs them
SAMPLES = 5  # of memory; the least of them is what is held


def held(pid):
    """What the agent and its workers hold of what can leak, with one worker there."""
    agent = psutil.Process(pid)
    family = [agent, *agent.children(recursive=True)]
    return {
        "processes": len(family),
        "descriptors": sum(p.num_fds() for p in family),
        "threads": sum(p.num_threads() for p in family),
        "arenas": Path(f"/proc/{pid}/maps").read_text().count("edge-agent-arena"),
    }


def memory_bytes(pid):
    """Resident set of the agent and its workers; a share of it (PSS) would hang on strangers."""
    agent = psutil.Process(pid)
    family = [agent, *agent.children(recursive=True)]
    return sum(p.memory_info().rss for p in family)


def rested(site):
    """`held` and `memory_bytes` once the replaced worker is gone and nobody asks it anything: the
    least of several looks, for a connection may just be ending.
    """
    pid = site.process.pid
    site.asks_no_more()
    eventually(lambda: len(psutil.Process(pid).children(recursive=True)) == 1, 10, "one worker")
    looks = list(_spaced(lambda: (held(pid), memory_bytes(pid))))
    least = {key: min(look[key] for look, _ in looks) for key in looks[0][0]}
    return least, min(weight for _, weight in looks)


def _spaced(measure):
    for _ in range(SAMPLES):
        yield measure()
        time.sleep(0.1)


def reported(site, release):
    """Whether the agent says that `release` has survived its probation."""
    model = ((site.reported or {}).get("models") or {}).get("m") or {}
    return (model.get("known_good") or {}).get("release") == release and model["phase"] == "steady"


def swap_again_and_again(broker, folder, swaps, *, counted_at, weighed_at):
    """Returns the figures; every promise is checked."""
    with Site(broker, folder, report={"receipt": "0s"}) as site:
        site.start()
        first = site.deploy(zoo.mlp(folder / "v1", name="m"), rollout=AT_ONCE)
        second = site.add(zoo.mlp(folder / "v2", bias=1.0, name="m"))
        took, before, light = [], {}, 0
        with Stream(broker.port, RATE) as stream:
            for n in range(1, swaps + 1):
                release = (first, second)[n % 2]
                wished = time.monotonic()
                site.desire("m", release, rollout=AT_ONCE)
                eventually(
                    lambda release=release: reported(site, release),
                    30,
                    f"swap {n}; {site.reported}",
                )
                took.append(time.monotonic() - wished)
                if n == counted_at:
                    before = rested(site)[0]
                if n == weighed_at:
                    light = rested(site)[1]
            after, heavy = rested(site)
            sent = stream.stop()
        books = site.scored("m", sent)
        assert accounted(books, sent) == {"lost": 0, "repeated": 0, "disordered": 0}
        assert books.repeated == 0
        eventually(lambda: site.model("m")["counts"]["scored"] == sent, 10)
        assert site.model("m")["counts"]["in"] == sent
        grown = after.pop("threads") - before.pop("threads")
        assert grown < min(POOL, swaps - counted_at)
        assert after == before
        told = lambda: [e["receipt"] for e in site.events if e["type"] == "swap"][1:]  # noqa: E731
        receipts = eventually(lambda: len(told()) >= swaps and told(), 20, "a receipt each")
        assert len(receipts) == swaps
        assert all(r["gap"] == r["duplicates"] == 0 for r in receipts)
        accounts = [r["counts"] for r in receipts]
        assert all(c["in"] == c["scored"] + c["pending"] for c in accounts), "nothing else here"
        assert [c["in"] for c in accounts] == sorted(c["in"] for c in accounts)
        releases = [books.rows[seq][3] for seq in sorted(books.rows)]
        changes = sum(a != b for a, b in pairwise(releases))
        assert changes == swaps
        during = [r["p99_ms"]["during"] for r in receipts if r["p99_ms"]["during"] is not None]
        quiet = [r["p99_ms"]["before"] for r in receipts if r["p99_ms"]["before"] is not None]
        return {
            "swaps": swaps,
            "readings": sent,
            "swap_s_median": round(statistics.median(took), 3),
            "swap_s_max": round(max(took), 3),
            "p99_ms_before_median": statistics.median(quiet),
            "p99_ms_during_median": statistics.median(during),
            "p99_ms_during_max": max(during),
            "rss_mb": [round(light / 2**20, 1), round(heavy / 2**20, 1)],
            "rss_ratio": round(heavy / light, 3),
            "held": {**after, "threads_grown": grown},
        }


def test_forty_swaps_under_a_stream_lose_repeat_and_leave_nothing(broker, tmp_path):
    """[delivery-3.1]"""
    figures = swap_again_and_again(broker, tmp_path, 40, counted_at=10, weighed_at=20)
    print(json.dumps(figures))
    assert figures["rss_ratio"] <= 1.05


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_thousand_swaps_under_a_stream_lose_repeat_and_leave_nothing(broker, tmp_path):
    figures = swap_again_and_again(broker, tmp_path, 1000, counted_at=10, weighed_at=50)
    print(json.dumps(figures))
    assert figures["rss_ratio"] <= 1.05
