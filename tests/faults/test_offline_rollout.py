"""A device that is offline from the start of a rollout to its end does the same as one online.

Its readings come from a file that grows; the wish was delivered, the package is at hand.  Then the
broker is gone until the rollout is over, for a good version and for a bad one.
"""

import json
import threading
import time
from typing import Self

import pytest

from tests.world import rollout_story as story
from tests.world.proxy import Proxy
from tests.world.site import Site
from tests.world.stream import BASE, SENSORS, reading
from tests.world.waiting import eventually

TICK_S = 0.01


class Log:
    """A file to which a logger appends `rate` readings a second while in the context."""

    def __init__(self, path, rate=story.RATE):
        self.path, self.sent = path, 0
        path.touch()
        self._rate = rate
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logger")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Append no more; how many readings there are."""
        self._over.set()
        self._thread.join()
        return self.sent

    def _run(self):
        began = time.monotonic()
        with self.path.open("a") as file:
            while not self._over.wait(TICK_S):
                due = int((time.monotonic() - began) * self._rate)
                for n in range(self.sent, due):
                    line = {"p": f"p{n % SENSORS}", **json.loads(reading(n))}
                    file.write(json.dumps(line) + "\n")
                file.flush()
                self.sent = due


def rollout(site, proxy, release, bars, over):
    """Wish for it and wait until it is over; with a `proxy`, that is not heard of meanwhile."""
    site.desire("m", release, rollout=bars)
    if proxy is not None:
        begun = f'"candidate": "m:{release}"'
        eventually(lambda: begun in site.log(), 20, "the wish was heard")
        proxy.refuse()
        reports = len(site.reports)
    over()
    if proxy is not None:
        late = site.reports[reports:]  # what was on its way when the line was cut
        assert not any(_ended(report["models"]["m"], release) for report in late), "nobody heard"
        proxy.heal()


def _ended(model, release):
    """Whether it tells what became of `release`."""
    active = (model["active"] or {}).get("release")
    return model["phase"] == "steady" and (active == release or model["quarantined"])


def lived(broker, folder, *, offline):
    """What becomes of a device to which version 2 is deployed, and then version 3."""
    folder.mkdir()
    stream = {"name": "s", "source": "file", "path": str(folder / "log"), "key": "p", "time": "ts"}
    one, two, three = story.packages(folder)
    log = Log(folder / "log")
    with Proxy(broker.port) as proxy:
        through = {"url": f"mqtt://127.0.0.1:{proxy.port}", "reconnect_s_max": 1.0}
        with Site(broker, folder, streams=[{**stream, "format": "ndjson"}], mqtt=through) as site:
            cut = proxy if offline else None
            site.start()
            site.deploy(one, rollout=story.AT_ONCE)
            second, bad = site.add(two), site.add(three)
            with log:
                rollout(site, cut, second, story.TRIAL, lambda: site.committed("m", second))
                rollout(site, cut, bad, story.BAD_TRIAL, lambda: story.settled(site))
                sent = log.stop()
            books = site.book("m")
            eventually(lambda: len(books.corrected()) >= sent, 30, f"{sent} rows")
            books.check()
            receipts = eventually(lambda: _receipts(site, 4), 20, "four receipts, whole")
            last = eventually(lambda: _reported(site, sent), 20, f"{sent} told; {site.reported}")
            return {
                "rows": sorted(round(row[1]) - BASE for row in books.corrected().values())
                == list(range(sent)),
                "said by the bad one": sum(r[3] == bad for r in books.corrected().values()),
                "reported": {k: last[k] for k in ("phase", "why", "active", "known_good")}
                | {"why": last["why"].split(":")[1], "quarantined": len(last["quarantined"])},
                "receipts": receipts,
            }


def _receipts(site, count):
    """The last edition of each, in the order of the changes; what time changes is left out."""
    last = {e["receipt"]["number"]: e["receipt"] for e in site.events if "receipt" in e}
    if len([one for one in last.values() if one["complete"]]) < count:
        return None
    return [
        {
            "kind": one["kind"],
            "from": one["from"] and one["from"]["release"],
            "to": one["to"]["release"],
            "gap": one["gap"],
            "duplicates": one["duplicates"],
            "missing": one["rescored"] and one["rescored"]["missing"],
            "evidence": [(e["phase"], e["verdict"]) for e in one["evidence"]],
        }
        for _, one in sorted(last.items())
    ]


def _reported(site, sent):
    model = site.reported["models"]["m"]
    return model if model["counts"]["scored"] == sent and model["counts"]["in"] == sent else None


@pytest.mark.timeout(180)
def test_a_device_offline_for_whole_rollouts_does_as_one_online(broker, tmp_path):
    """[rollout-1.7]"""
    online = lived(broker, tmp_path / "on", offline=False)
    with type(broker)() as fresh:
        offline = lived(fresh, tmp_path / "off", offline=True)
    assert offline == online
    assert online["rows"]
    assert online["said by the bad one"] == 0
    assert [(r["kind"], r["from"], r["to"]) for r in online["receipts"]][-2:] == [
        ("swap", 2, 3),
        ("rollback", 3, 2),
    ]
