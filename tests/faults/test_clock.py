"""A whole agent under a wall clock that is decades wrong, or jumps: it scores, swaps, and lets
nothing expire.
"""

import itertools
import json
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.world import rollout_story, zoo
from tests.world.proxy import Proxy
from tests.world.site import Site
from tests.world.stream import Stream, accounted, reading
from tests.world.waiting import eventually
from tests.world.wrong_clock import PATH, YEAR_S, WrongClock

RATE = 200.0
HOUR_S = 3600.0
TTL = "20s"  # records older than this are given up, and looked for each second
STALL_S_MAX = 1.0  # the longest wait of any schedule that the stream could depend on
BESIDE_MAX = 5  # or so many times the longest wait under a right clock, on a machine that is busy


@contextmanager
def jumping(clock):
    """An hour back and an hour on in turn, each second; yields how often it has jumped so far."""
    over, jumps = threading.Event(), []

    def run():
        for sign in itertools.cycle((-1, 1)):
            clock.set(sign * HOUR_S)
            jumps.append(sign)
            if over.wait(1.0):
                return

    thread = threading.Thread(target=run, name="clock")
    thread.start()
    try:
        yield jumps
    finally:
        over.set()
        thread.join()


def longest_wait(books, seconds, meanwhile=lambda: None):
    """The longest time, in `seconds` of a live stream, without a new score; `meanwhile` is done in
    its middle.
    """
    began = last = time.monotonic()
    rows, longest, is_done = books.first_hand, 0.0, False
    while (now := time.monotonic()) < began + seconds:
        if books.first_hand > rows:
            rows, last = books.first_hand, now
        longest = max(longest, now - last)
        if not is_done and now > began + seconds / 2:
            meanwhile()
            is_done = True
        time.sleep(0.005)
    return longest


def without_a_busy_machine(measure):
    """The least of up to three: the machine stalls now and then, what hangs on the clock always."""
    least = measure()
    for _ in range(2):
        if least >= STALL_S_MAX:
            least = min(least, measure())
    return least


def nothing_expired(site):
    """No reading and no record was given up for its age, and nothing was rejected for its time."""
    counts, outbox = site.model("m")["counts"], site.state()["outbox"]
    assert (counts["expired"], counts["rejected"], outbox["gaps"]) == (0, {}, 0), (counts, outbox)
    assert not [e for e in site.events if e["type"] == "gap"]


def device(broker, folder, **more):
    """A site whose agent's clock is in our hands, and that clock."""
    clock = WrongClock(folder / "clock")
    site = Site(broker, folder, store={"dir": str(folder / "store"), "outbox_ttl": TTL}, **more)
    site.program, site.environ = "tests.world.wrong_clock", {PATH: str(clock.path)}
    return site, clock


def jumps_under_a_stream(broker, tmp_path, seconds):
    site, clock = device(broker, tmp_path)
    with site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"), rollout=rollout_story.AT_ONCE)
        second = site.add(zoo.mlp(tmp_path / "v2", bias=1.0, name="m"))
        third = site.add(zoo.mlp(tmp_path / "v3", bias=2.0, name="m"))

        def wish(release):
            site.desire("m", release, rollout=rollout_story.AT_ONCE)

        with Stream(broker.port, RATE) as stream:
            site.scored("m", 50)
            right_s = longest_wait(site.book("m"), 4.0, lambda: wish(second))
            site.committed("m", second)
            with jumping(clock) as jumps:
                wishes = itertools.cycle((third, second))

                def beside_a_rollout():
                    release = next(wishes)
                    longest_s = longest_wait(site.book("m"), seconds, lambda: wish(release))
                    site.committed("m", release)
                    return longest_s

                wrong_s = without_a_busy_machine(beside_a_rollout)
            sent = stream.stop()
        books = site.scored("m", sent)
        print(
            f"{len(jumps)} jumps of ±1 h, {sent} readings, a rollout in the middle: longest wait"
            f" for a score {wrong_s * 1000:.0f} ms, under a right clock {right_s * 1000:.0f} ms"
        )
        assert accounted(books, sent) == {"lost": 0, "repeated": 0, "disordered": 0}
        nothing_expired(site)
        assert wrong_s < max(STALL_S_MAX, BESIDE_MAX * right_s)


@pytest.mark.timeout(180)
def test_a_clock_that_jumps_an_hour_each_second_holds_up_and_expires_nothing(broker, tmp_path):
    """[durability-5.1]"""
    jumps_under_a_stream(broker, tmp_path, 6.0)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_clock_that_jumps_an_hour_each_second_for_long(broker, tmp_path):
    jumps_under_a_stream(broker, tmp_path, 20.0)


def starts_under_a_stream(broker, tmp_path, walls):
    """On one store, one after another."""
    site, clock = device(broker, tmp_path)
    clock.show(walls["1970"])
    with site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v0", name="m"), rollout=rollout_story.AT_ONCE)
        with Stream(broker.port, RATE) as stream:
            for n, (name, wall) in enumerate(walls.items(), 1):
                if n > 1:
                    site.stop()
                    clock.show(wall)
                    site.start()
                began = time.monotonic()
                package = zoo.mlp(tmp_path / f"v{n}", bias=float(n), name="m")
                site.deploy(package, rollout=rollout_story.AT_ONCE)
                took_s = time.monotonic() - began
                wait_s = without_a_busy_machine(lambda: longest_wait(site.book("m"), 1.5))
                print(
                    f"{name}: the next version served after {took_s:.1f} s (a start in it but at"
                    f" the first), longest wait for a score {wait_s * 1000:.0f} ms"
                )
                assert wait_s < STALL_S_MAX
                nothing_expired(site)
            sent = stream.stop()
        books = site.scored("m", sent)
        print(f"{sent} readings, each scored once")
        assert accounted(books, sent) == {"lost": 0, "repeated": 0, "disordered": 0}
        nothing_expired(site)


@pytest.mark.timeout(180)
def test_a_clock_that_begins_at_1970_keeps_no_reading_and_no_rollout_back(broker, tmp_path):
    """[durability-5.1]"""
    starts_under_a_stream(broker, tmp_path, {"1970": 0.0})


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_clock_that_is_decades_wrong_keeps_no_reading_and_no_rollout_back(broker, tmp_path):
    years = {"50 years ago": -50, "in 50 years": 50}
    walls = {name: time.time() + n * YEAR_S for name, n in years.items()}
    starts_under_a_stream(broker, tmp_path, {"1970": 0.0, **walls})


@pytest.mark.timeout(180)
def test_what_waits_without_a_link_does_not_expire_by_any_step_of_the_clock(broker, tmp_path):
    """[durability-5.1] [delivery-2.6] Jumps while it waits, and a restart fifty years later."""
    log = tmp_path / "log"
    log.touch()
    stream = {"name": "s", "source": "file", "path": str(log), "key": "p", "time": "ts"}
    with Proxy(broker.port) as proxy:
        through = {"url": f"mqtt://127.0.0.1:{proxy.port}", "reconnect_s_max": 1.0}
        site, clock = device(
            broker, tmp_path, streams=[{**stream, "format": "ndjson"}], mqtt=through
        )
        with site:
            site.start()
            site.deploy(zoo.mlp(tmp_path / "v1", name="m"), rollout=rollout_story.AT_ONCE)
            proxy.refuse()
            proxy.cut()
            with jumping(clock) as jumps:
                rows = _write(log, 0, 500, lambda: len(jumps) > 5)
            eventually(lambda: site.model("m")["counts"]["scored"] == rows, 20, "all scored")
            assert not site.book("m").rows
            for wall in (0.0, time.time() + 50 * YEAR_S, time.time() - 50 * YEAR_S):
                site.kill()
                clock.show(wall)
                site.start()
                rows = _write(log, rows, 100, lambda: True)
                eventually(
                    lambda rows=rows: (site.model("m").get("counts") or {}).get("scored") == rows,
                    20,
                    f"{rows} scored; {site.model('m')}",
                )
            time.sleep(1.5)  # the age of all is looked at meanwhile
            waiting = site.state()["outbox"]
            nothing_expired(site)
            proxy.heal()
            site.scored("m", rows).check()
            print(
                f"{rows} rows ({waiting['records']} records) waited through {len(jumps)} jumps and"
                " three starts, at 1970, in 50 years and 50 years ago: all came, 0 expired"
            )


def _write(log: Path, first: int, at_once: int, is_enough) -> int:
    """Readings into the file, `at_once` each 0.2 s; returns the number of the next one."""
    while True:
        with log.open("a") as file:
            for n in range(first, first + at_once):
                file.write(json.dumps({"p": "p1", **json.loads(reading(n))}) + "\n")
        first += at_once
        if is_enough():
            return first
        time.sleep(0.2)
