"""What a stream feels while a large model loads and takes over: p99 during ÷ p99 before."""

import contextlib
import json
import os
import shutil
import statistics
import time

import pytest

from tests.bench.stand import SCORES, child, quiet_broker
from tests.world import zoo
from tests.world.site import Site
from tests.world.waiting import eventually

ROUNDS = 5
RATE = 2000  # readings a second
BEFORE_S = 3
SETTLE_S = 5  # after what was written last: the disk behind this machine has a cache, too


@pytest.mark.parametrize("size_mb", [100, 400])
def test_p99_while_a_large_model_loads_and_is_swapped_in(tmp_path, figure, size_mb):
    ratios, told = [], []
    with (
        quiet_broker() as broker,
        child("sink", broker.url, SCORES) as sink,
        Site(
            broker,
            tmp_path,
            hears=("events", "reported"),
            report={"interval": "60s", "receipt": "1s"},
        ) as site,
        contextlib.ExitStack() as later,
    ):
        site.start()
        site.deploy(large(tmp_path / "v0", size_mb, bias=0.0))
        releases = []
        for turn in range(1, ROUNDS + 1):
            releases.append(site.add(large(tmp_path / f"v{turn}", size_mb, bias=float(turn))))
            shutil.rmtree(tmp_path / f"v{turn}")
        os.sync()  # what the author of a model writes, a device does not
        later.enter_context(child("sensors", broker.url, 1, RATE, RATE * 600)).say()
        for release in releases:
            time.sleep(SETTLE_S)
            lapped(sink)
            time.sleep(BEFORE_S)
            before = lapped(sink)
            site.desire("m", release)
            swapped(site, release)
            during = lapped(sink)
            ratios.append(during["p99"] / before["p99"])
            told.append(receipt(site, release)["p99_ms"])
            print(f"\n{before['p99']:.1f} -> {during['p99']:.1f} ms; receipt {told[-1]}", end="")
    own = statistics.median(one["during"] / one["before"] for one in told)
    figure(
        f"p99 while a {size_mb} MB model is fetched, loads and is swapped in ÷ before, "
        f"{RATE:,} readings/s",
        f"{statistics.median(ratios):.2f} at the consumer, {own:.2f} in the receipts",
        "1.2",
    )


def large(folder, size_mb, *, bias):
    return zoo.big(folder, size_mb=size_mb, bias=bias, name="m", features={"names": ["f0"]})


def lapped(sink):
    """What has come since last asked."""
    sink.say(1)
    return json.loads(sink.line())


def swapped(site, release):
    """Told, not asked for: to answer a poll takes time, and nobody polled in the lap before."""

    def done():
        return site.reported["models"]["m"]["active"]["release"] == release

    return eventually(done, 60, f"release {release} scores")


def receipt(site, release):
    def found():
        receipts = [event["receipt"] for event in site.events if event.get("receipt")]
        return next((r for r in receipts if (r["to"] or {}).get("release") == release), None)

    return eventually(found, 30, "the receipt")
