"""Faults at random instants under a live stream, and what must hold when it is over.

The checker trusts nobody's memory but that of the two ends: what the producers have sent, and what
a consumer at the broker has received.  Every good version says y = f0 and every bad one no number.
"""

import contextlib
import json
import math
import os
import time
from collections import Counter

import psutil

from tests.world import turning
from tests.world.site import Site
from tests.world.stream import BASE, SENSORS, TICK_S, Stream, reading
from tests.world.waiting import eventually

RATE = 200.0
BARS = {
    "shadow": {"windows": 50, "max": 60.0},
    "canary": {"share": 0.5, "windows": 20},
    "probation": {"windows": 400, "latency_ratio": 100.0},
}
BAD_AFTER = 30  # calls of a sensor
HEARD = ("canary", "promoting", "probation", "rolling-back", "steady")
PHASE_S_MAX = 6.0  # for a rollout to come to one of them
REST_S_MAX = 15.0
HANG_S_MAX = 4.0  # that a stopped worker is left so
DARK_S_MAX = 4.0
DRAIN_S = 0.5  # for what the broker has for the consumer


class Tap(Stream):
    """A stream that can be held up; while it is, the broker has all that was sent."""

    held = False

    def _run(self):
        last = time.monotonic()
        owed = 0.0
        while not self._over.wait(TICK_S):
            now = time.monotonic()
            owed, last = owed + (now - last) * self._rate, now
            if self.held:
                owed = 0.0
                continue
            for n in range(self.sent, self.sent + int(owed)):
                self._client.publish(f"plant/p{n % SENSORS}", reading(n), qos=1)
                self.sent = n + 1
            owed -= int(owed)
        self.quiet()

    def quiet(self):
        """Wait until the broker has it all."""
        eventually(lambda: not self._client._out_messages, 30, "the broker has every reading")

    def hold(self):
        """Send nothing more for now."""
        self.held = True
        time.sleep(4 * TICK_S)  # the turn in hand
        self.quiet()


class Storm:
    """Use `over` a site that has scored with version 1; `faults` are names of methods here."""

    def __init__(self, site: Site, broker, proxy, tap: Tap, *, dice, faults) -> None:
        self.site, self.broker, self.proxy, self.tap, self.dice = site, broker, proxy, tap, dice
        self.faults = faults
        self.done = Counter()
        self.bad: set[int] = set()
        self.at_risk: set[int] = set()  # readings that a broker without memory had in its hands
        self._versions = 0

    def blow(self, *, pause_s, seconds=math.inf, count=math.inf):
        """Fault upon fault, with a pause between, for so long or so many."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.done.total() < count:
            time.sleep(self.dice.uniform(*pause_s))
            fault = self.dice.choice(self.faults)
            print(f"{time.monotonic():.1f} {fault}", flush=True)
            getattr(self, fault)()
            self.done[fault] += 1

    # ---- faults ----

    def kill_agent(self):
        self.site.kill()
        time.sleep(self.dice.uniform(0, 0.5))
        self.site.start()

    def kill_in_phase(self):
        """A moment after the rollout in hand has come to one of its later phases, if it does."""
        phase = self.dice.choice(HEARD)
        if not self._rests():
            with (self.site.folder / "agent.log").open("rb") as log:
                log.seek(0, os.SEEK_END)
                said = []
                with contextlib.suppress(AssertionError):
                    eventually(lambda: self._says(log, said, phase), PHASE_S_MAX)
        time.sleep(self.dice.uniform(0, 0.4))
        self.kill_agent()

    def _says(self, log, said, phase):
        said.append(log.read())
        return b'"now": "%s"' % phase.encode() in b"".join(said)

    def kill_worker(self):
        if (worker := self._worker()) is not None:
            worker.kill()

    def stop_worker(self):
        if (worker := self._worker()) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.suspend()
                time.sleep(self.dice.uniform(0, HANG_S_MAX))
                worker.resume()

    def cut_link(self):
        self.proxy.cut()

    def black_hole(self):
        self.proxy.stall()
        time.sleep(self.dice.uniform(0.5, DARK_S_MAX))
        self.proxy.heal()

    def restart_broker(self):
        """In order: it keeps sessions and what is in them."""
        self._without_broker(self.broker.stop)

    def wipe_broker(self):
        """It forgets everything: what it held for the agent is gone, and the wish with it."""

        def wipe():
            self.broker.kill()
            (self.broker.folder / "mosquitto.db").unlink(missing_ok=True)

        self.resume()
        had = {_number(row) for row in [*self.site.book("m").rows.values()]}
        ups = self.site.log().count("data_connection_up")
        self._without_broker(
            wipe,
            lambda: eventually(
                lambda: self.site.log().count("data_connection_up") > ups, 60, "it listens again"
            ),
        )
        self.at_risk |= set(range(self.tap.sent_at_hold)) - had

    def deploy_good(self):
        self._versions += 1
        name = f"good{self._versions}"
        self._deploy(turning.counting(self.site.folder / name, name="m", tags={"of": name}))

    def deploy_bad(self):
        self._versions += 1
        name = f"bad{self._versions}"
        package = turning.nan_after(
            self.site.folder / name, calls=BAD_AFTER, name="m", tags={"of": name}
        )
        self.bad.add(self._deploy(package))

    def deploy_bad_at_rest(self):
        """So that it may come as far as to be heard."""
        with contextlib.suppress(AssertionError):
            eventually(self._rests, REST_S_MAX)
        self.deploy_bad()

    def _rests(self):
        return self.site.model("m").get("phase") == "steady"

    def pause(self):
        self._command("pause", {"stream": "s"})

    def resume(self):
        self._command("resume", {"stream": "s"})

    def roll_back(self):
        self._command("rollback", {"model": "m"})

    # ---- how ----

    def _worker(self):
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = psutil.Process(self.site.process.pid).children(recursive=True)
            return self.dice.choice(workers) if workers else None
        return None

    def _deploy(self, package):
        release = self.site.add(package)
        self.site.desire("m", release, rollout=BARS)
        return release

    def _command(self, name, args):
        with contextlib.suppress(AssertionError):  # nobody there to answer: so be it
            self.site.command(name, args, 5)

    def _without_broker(self, end, then=lambda: None):
        """Both ends are quiet while it is away, so that what is lost is lost by the agent."""
        self.tap.hold()
        self.tap.sent_at_hold = self.tap.sent
        self.proxy.refuse()
        time.sleep(DRAIN_S)
        end()
        self.broker.start()
        eventually(lambda: self.site._client.is_connected() and self.tap._client.is_connected(), 30)
        probe = {"type": "probe", "at": time.monotonic()}
        eventually(lambda: self._heard(probe), 30, "the consumer hears again")
        self.site.publish(
            "edge/dev-1/desired",
            json.dumps(
                {"schema": 1, "revision": self.site.revision, "models": self.site.wanted}
            ).encode(),
            retain=True,
        )
        self.proxy.heal()
        then()
        self.tap.held = False

    def _heard(self, probe):
        self.site.publish("edge/dev-1/events", json.dumps(probe).encode())
        return probe in self.site.events

    # ---- afterwards ----

    def over(self):
        """The sky clears; everything that must hold is checked.  Returns the figures."""
        site = self.site
        self.proxy.heal()
        eventually(site.state, 30, "the agent is up")
        eventually(lambda: site.command("resume", {"stream": "s"}, 10), 60)
        at_rest = lambda: site.model("m").get("phase") == "steady"  # noqa: E731
        eventually(at_rest, 120, f"the last rollout is over; {site.model('m')}")
        sent = self.tap.stop()
        books = site.book("m")
        sure = set(range(sent)) - self.at_risk

        def lost():
            return sure - {_number(row) for row in [*books.corrected().values()]}

        def settled():
            model = site.model("m")
            counts = model.get("counts") or {}
            return not lost() and model.get("phase") == "steady" and counts.get("pending") == 0

        def agreed():
            """What the agent says, a second later than it is, and what has come: the same."""
            n = len({_number(row) for row in books.corrected().values()})
            told = {"in": n, "scored": n, "rejected": {}, "expired": 0, "pending": 0}
            return site.model("m")["counts"] == told

        eventually(settled, 120, f"lost {sorted(lost())[:5]}; {site.model('m')}")
        eventually(agreed, 30, f"{len(books.corrected())} rows; {site.model('m')['counts']}")
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self._untold(), 30)
        assert not self._untold(), f"stand, and were not told: {self._untold()}"
        books.check()
        now = books.corrected()
        rows = Counter(_number(row) for row in now.values())
        assert rows.keys() <= set(range(sent))
        assert max(rows.values()) == 1, f"scored twice: {rows.most_common(3)}"
        wrong = [row for row in now.values() if row[3] not in self.bad and not _right(row)]
        assert not wrong, (len(wrong), wrong[:3])
        assert site.model("m")["active"]["release"] not in self.bad
        return {
            "faults": dict(self.done),
            "readings": sent,
            "lost by the broker": len(set(range(sent)) - rows.keys()),
            "rows repeated, the same": books.repeated,
            "superseded": len(books.superseding),
            "not taken back, and told": self._standing().total(),
            "versions": [self._versions, len(self.bad)],
        }

    def _standing(self):
        """Rows of bad versions that stand, by release."""
        now = self.site.book("m").corrected().values()
        return Counter(row[3] for row in now if row[3] in self.bad)

    def _untold(self):
        """Of which versions more stands than receipts of their rollback tell; as [stand, told]."""
        told = Counter()
        last = {e["receipt"]["number"]: e["receipt"] for e in self.site.events if "receipt" in e}
        for one in last.values():
            if one["kind"] == "rollback" and one["rescored"]:
                left = one["rescored"]["missing"] + one["rescored"]["refused"]
                told[one["from"]["release"]] += left
        return {r: [n, told[r]] for r, n in self._standing().items() if n > told[r]}


def _number(row):
    return round(row[1]) - BASE


def _right(row):
    return row[2] is not None and abs(row[2] - json.loads(reading(_number(row)))["f0"]) < 1e-6
