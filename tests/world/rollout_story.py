"""One scripted story of a device, told under a live stream: what it ends in is always the same.

Version 1 is installed; version 2, as good, walks through every trial and takes over; the keys of
the repository are replaced; version 3, signed by the new ones, turns bad while it is on trial, is
rolled back and what it said is scored again.  All three say y = f0 while they are well, so what a
consumer must hold in the end is known exactly.
"""

import contextlib
import json
import shutil
import sqlite3
from contextlib import closing
from typing import NamedTuple

import pytest

from agent.core.trust import TrustState
from agent.repository.layout import Repository
from agent.repository.signed import SignedPublisher
from tests.world import turning
from tests.world.stream import BASE, Stream, reading
from tests.world.waiting import eventually

RATE = 100.0
BAD_AFTER = 30  # calls of one sensor
TRIAL = {
    "shadow": {"windows": 50, "max": 60.0},
    "canary": {"share": 0.5, "windows": 20},
    "probation": {"windows": 50, "latency_ratio": 100.0},
}
BAD_TRIAL = {
    "shadow": {"windows": 50, "max": 60.0},
    "probation": {"windows": 20_000, "latency_ratio": 100.0},
}
AT_ONCE = {"probation": {"windows": 0, "time": "0s"}}
WELL, SECOND, BAD = 1, 2, 3  # the releases


def packages(folder):
    """The three versions."""
    one = turning.counting(folder / "v1", name="m")
    two = turning.counting(folder / "v2", name="m", tags={"of": "second"})
    three = turning.nan_after(folder / "v3", calls=BAD_AFTER, name="m")
    return one, two, three


def tell(site, folder, *, seconds=60):
    """The whole story, on an agent that runs; returns how many readings were sent."""
    one, two, three = packages(folder)
    site.deploy(one, rollout=AT_ONCE, seconds=seconds)
    with Stream(int(site.broker.url.rsplit(":", 1)[1]), RATE) as stream:
        site.deploy(two, rollout=TRIAL, seconds=seconds)
        SignedPublisher().rotate(Repository.open(folder / "repo"), "m")
        site.desire("m", site.add(three), rollout=BAD_TRIAL)
        settled(site, seconds)
        return stream.stop()


def settled(site, seconds=60):
    """Wait until version 3 is condemned and version 2 is at rest."""

    def done():
        model = site.model("m")
        return model.get("phase") == "steady" and model.get("quarantined")

    return eventually(done, seconds, f"version 3 condemned; {site.model('m')}")


def outcome(site, sent):
    """What the story ended in, after checking the books; equal for every way it can be told."""
    books = site.book("m")
    whole = {"in": sent, "scored": sent, "rejected": {}, "expired": 0, "pending": 0}
    eventually(lambda: site.model("m").get("counts") == whole, 30, f"{whole}; {site.model('m')}")
    eventually(lambda: len(books.corrected()) >= sent, 30, f"{sent} rows; {len(books.rows)}")
    books.check()
    now = books.corrected()
    readings = sorted(round(row[1]) - BASE for row in now.values())
    assert readings == list(range(sent)), "each reading has exactly one row that stands"
    assert all(_right(row) for row in now.values() if row[3] != BAD)
    receipts = eventually(lambda: rollbacks(site), 20, "a receipt of the rollback")

    def told():  # what the ring lost stands: [durability-2.3]
        stands = sum(row[3] == BAD for row in books.corrected().values())
        return stands == rollbacks(site)[-1]["rescored"]["missing"]

    eventually(told, 10, f"what stands is told; {receipts[-1]['rescored']}")
    there = lambda: (model := site.model("m"))["active"]["release"] and model  # noqa: E731
    model = eventually(there, 30, "it answers, though it may have died just now")
    return {
        "active": model["active"]["release"],
        "known_good": model["known_good"]["release"],
        "phase": model["phase"],
        "quarantined": len(model["quarantined"]),
        "receipts": {(r["from"]["release"], r["to"]["release"]) for r in receipts},
    }


def _right(row):
    want = json.loads(reading(round(row[1]) - BASE))["f0"]
    return row[2] == pytest.approx(want, abs=1e-6)


def rollbacks(site):
    """The receipts of rollbacks that say what was taken back; the last edition told of each."""
    found = [e["receipt"] for e in site.events if e["type"] == "rollback"]
    return [one for one in found if one["rescored"] is not None]


class Remains(NamedTuple):
    """What the store of a dead agent says: the highest release that it remembers to have accepted,
    and from which score row on nobody may hear version 3 any more (None: it was not condemned).
    """

    floor: int
    silent_from: int | None


def remains(store, scratch):
    """Of the database of a dead agent a copy is read: to open it would be a repair."""
    copies = [p.read_bytes() for p in [store / "vault" / "trust"] if p.exists()]
    silent_from = None
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for part in store.glob("agent.db*"):
        shutil.copy(part, scratch)
    if (scratch / "agent.db").exists():
        with (
            closing(sqlite3.connect(scratch / "agent.db")) as connection,
            contextlib.suppress(sqlite3.OperationalError),  # no tables yet
        ):
            found = connection.execute("SELECT body FROM document WHERE name='trust'")
            copies += [raw for (raw,) in found]
            for (raw,) in connection.execute("SELECT body FROM rollout WHERE model='m'").fetchall():
                if json.loads(raw)["quarantined"]:
                    ((account,),) = connection.execute("SELECT body FROM account").fetchall()
                    silent_from = json.loads(account)["next_seq"]
    floor = max((TrustState.from_bytes(raw).releases.get("m", 0) for raw in copies), default=0)
    return Remains(floor, silent_from)
