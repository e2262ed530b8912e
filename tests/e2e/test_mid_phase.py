"""What happens to a rollout in the middle of each of its phases, under a live stream.

Whatever comes, the reports are true, no reading is lost or stands twice, one version at a time has
the stream, and what ends a version is named in its receipt.

    make soak ARGS="tests/e2e/test_mid_phase.py"
"""

import json
import shutil
import threading
import time
from contextlib import contextmanager

import httpx
import psutil
import pytest

from agent.core.rollout import TRANSITIONS, Phase
from tests.world import rollout_story as story
from tests.world import turning
from tests.world.site import Site
from tests.world.stream import BASE, SENSORS, Stream, reading
from tests.world.waiting import eventually

RATE = 200.0
ENDLESS = 10**6
HELD = {  # bars that keep a rollout in a phase
    "shadow": {"shadow": {"windows": ENDLESS, "max": 600.0}},
    "canary": {"canary": {"share": 0.5, "windows": ENDLESS}},
    "probation": {"probation": {"windows": ENDLESS}},
}
AT_ONCE = {"probation": {"windows": 0, "time": "0s"}}
PHASES = ["fetching", *HELD]
ONE_IS_QUICK = [pytest.param(p, marks=[pytest.mark.soak] * (p != "canary")) for p in PHASES]


class Scene:
    """A site whose release 1 has the stream; `packages` all say y = f0 while they are well."""

    def __init__(self, site, folder, stream):
        self.site, self.folder, self.stream = site, folder, stream
        self.hidden = []

    def wish(self, phase, number=2, make=turning.counting, **members):
        """A release that is held in `phase`; returns its number."""
        folder = self.folder / f"v{number}"
        before = self.blobs()
        release = self.site.add(make(folder, name="m", tags={"of": str(number)}, **members))
        if phase == "fetching":
            self.hidden = sorted(self.blobs() - before)
            for path in self.hidden:
                path.rename(f"{path}.away")
        self.site.desire("m", release, rollout=HELD.get(phase, AT_ONCE))
        return release

    def blobs(self):
        return set((self.folder / "repo" / "blobs").rglob("*")) - {self.folder}

    def unhide(self):
        for path in self.hidden:
            shutil.move(f"{path}.away", path)
        self.hidden = []

    def reached(self, phase, release, seconds=40):
        def there():
            model = self.site.model("m")
            candidate = (model.get("candidate") or {}).get("release")
            return model.get("phase") == phase and candidate == release and model

        return eventually(there, seconds, f"{phase} of m:{release}; {self.site.model('m')}")

    def back(self, release=1, seconds=40):
        """Wait until `release` has the stream and nothing is tried; the model's part of /state."""

        def there():
            model = self.site.model("m")
            active = (model.get("active") or {}).get("release")
            return model.get("phase") == "steady" and active == release and model

        return eventually(there, seconds, f"back to {release}; {self.site.model('m')}")

    def workers(self):
        """The processes of the workers, oldest first."""
        agent = psutil.Process(self.site.process.pid)
        return sorted(agent.children(recursive=True), key=lambda p: p.create_time())

    def flows(self, rows=100, seconds=30):
        """Wait until so many more rows have come."""
        self.site.scored("m", self.site.book("m").first_hand + rows, seconds)

    def receipts(self, kind):
        last = {e["receipt"]["number"]: e["receipt"] for e in self.site.events if "receipt" in e}
        return [r for r in last.values() if r["kind"] == kind]

    def ends_well(self):
        """Stop the stream and hold the books against it."""
        site, books = self.site, self.site.book("m")
        sent = self.stream.stop()
        eventually(lambda: len(books.corrected()) >= sent, 60, f"{sent} rows that stand")
        books.check()
        now = books.corrected()
        assert sorted(round(row[1]) - BASE for row in now.values()) == list(range(sent))
        for row in now.values():
            n = round(row[1]) - BASE
            assert row[2] == pytest.approx(json.loads(reading(n))["f0"], abs=1e-6)
        whole = {"in": sent, "scored": sent, "rejected": {}, "expired": 0, "pending": 0}
        eventually(lambda: site.model("m")["counts"] == whole, 10, f"{site.model('m')['counts']}")
        are_true(site.reports)


def are_true(reports):
    """That a phase follows from the one before it as far as reports tell, and the state says so."""
    assert reports
    for report in reports:
        model = report["models"].get("m") or {}
        if not model:
            continue
        phase = Phase(model["phase"])
        assert (model["state"] == "Transitioning") == (phase is not Phase.STEADY) or (
            phase is Phase.STEADY and model["active"] is None
        )
        assert (model["candidate"] is None) == (phase is Phase.STEADY)
        active = (model["active"] or {}).get("release")
        candidate = (model["candidate"] or {}).get("release")
        if phase is Phase.PROBATION:
            assert active == candidate
        elif phase in TRANSITIONS and phase not in (Phase.ROLLING_BACK, Phase.RETIRING):
            assert active != candidate


@contextmanager
def scene(broker, folder):
    with Site(broker, folder) as site:
        site.start()
        site.deploy(turning.counting(folder / "v1", name="m"), rollout=AT_ONCE)
        with Stream(broker.port, RATE) as stream:
            site.scored("m", 50)
            yield Scene(site, folder, stream)


@pytest.mark.parametrize("phase", ONE_IS_QUICK)
def test_commands_kills_and_a_stop_in_mid_phase(broker, tmp_path, phase):
    """[rollout-1.2] [rollout-1.4] [rollout-3.2] Pardon changes nothing; a killed worker comes back;
    stopped and started it goes on; `rollback` ends it, or says why not; pardoned, the standing wish
    tries it anew.
    """
    with scene(broker, tmp_path) as told:
        site = told.site
        second = told.wish(phase)
        told.reached(phase, second)
        assert site.command("retry", {"model": "m"})["code"] == 200
        for worker in told.workers():  # one in fetching; else that of the active version first
            worker.kill()
            told.flows()
            told.reached(phase, second)
        assert site.stop() == 0, "in order, and soon"
        site.start()
        told.reached(phase, second)
        told.flows()
        answer = site.command("rollback", {"model": "m"})
        if phase == "fetching":
            assert answer["code"] == 409
            assert "only being fetched" in answer["why"]
            told.unhide()
            site.committed("m", second)
        else:
            assert answer["code"] == 200
            model = told.back()
            assert "rolled back by command" in model["why"]
            assert model["quarantined"]
            assert site.command("retry", {"model": "m"})["code"] == 200
            told.reached(phase, second)
            assert site.command("rollback", {"model": "m"})["code"] == 200
            told.back()
            heard = 2 if phase in ("canary", "probation") else 0
            eventually(lambda: len(told.receipts("rollback")) == heard, 20, "a receipt each")
            whys = {r["why"] for r in told.receipts("rollback")}
            assert all("rolled back by command" in why for why in whys)
        told.ends_well()


@pytest.mark.soak
@pytest.mark.parametrize("phase", PHASES)
def test_a_newer_wish_in_mid_phase(broker, tmp_path, phase):
    """[rollout-2.1] [rollout-2.2]"""
    with scene(broker, tmp_path) as told:
        site = told.site
        second = told.wish(phase)
        told.reached(phase, second)
        third = told.wish("", 3)
        if phase == "probation":
            waits = f"m:{third} is wished for by now and waits until m:{second}"
            eventually(lambda: waits in site.model("m")["why"], 20, "the wait is no secret")
            assert site.command("rollback", {"model": "m"})["code"] == 200
        site.committed("m", third)
        model = site.model("m")
        assert model["active"]["release"] == third
        assert bool(model["quarantined"]) == (phase == "probation")
        if phase in ("canary", "probation"):
            (receipt,) = eventually(lambda: told.receipts("rollback"), 20, "its receipt")
            why = "by command" if phase == "probation" else "not wished for any more"
            eventually(lambda: told.receipts("rollback")[0]["rescored"], 20, "written whole")
            (receipt,) = told.receipts("rollback")
            assert why in receipt["why"]
            assert receipt["rescored"]["missing"] == 0
        told.ends_well()


@pytest.mark.soak
@pytest.mark.parametrize("phase", [*HELD])
def test_lower_bars_in_mid_phase(broker, tmp_path, phase):
    """[rollout-5.12]"""
    with scene(broker, tmp_path) as told:
        second = told.wish(phase)
        told.reached(phase, second)
        told.site.desire("m", second, rollout=AT_ONCE)
        told.site.committed("m", second)
        told.ends_well()


@pytest.mark.soak
@pytest.mark.parametrize("phase", ["fetching", "shadow", "canary"])
@pytest.mark.parametrize("kind", ["crash", "hang"])
def test_the_live_version_turns_bad_while_another_is_on_trial(broker, tmp_path, phase, kind):
    """[rollout-7.4]"""
    make = {"crash": turning.crash_after, "hang": turning.hang_after}[kind]
    with scene(broker, tmp_path) as told:
        site = told.site
        second = site.deploy(make(tmp_path / "v2", calls=700, name="m"), rollout=AT_ONCE)
        third = told.wish(phase, 3)
        told.reached(phase, third)
        began = time.monotonic()

        def went():
            return any(r["from"]["release"] == second for r in told.receipts("rollback"))

        eventually(went, 60, f"m:{second} is gone; {site.model('m')}")
        print(f"\n{kind} in {phase}: gone {time.monotonic() - began:.1f} s after it was seen there")
        told.reached(phase, third)
        model = site.model("m")
        assert model["active"]["release"] == 1
        assert len(model["quarantined"]) == 1
        if phase == "fetching":
            told.unhide()
            site.committed("m", third)
        told.ends_well()


@pytest.mark.soak
def test_two_models_on_one_stream_roll_out_at_once_and_one_of_them_turns_bad(broker, tmp_path):
    """[rollout-1.1] [rollout-6.1] Neither hears of the other."""
    with Site(broker, tmp_path) as site:
        site.start()
        for name in ("m", "n"):
            site.add(turning.counting(tmp_path / f"{name}1", name=name))
        site.desire("m", 1, rollout=AT_ONCE)
        site.desire("n", 1, rollout=AT_ONCE)
        site.committed("m", 1)
        site.committed("n", 1)
        with Stream(broker.port, RATE) as stream:
            site.scored("m", 50)
            trial = {
                "shadow": {"windows": 100, "max": 60.0},
                "canary": {"share": 0.5, "windows": 50},
                "probation": {"windows": 100},
            }
            good = turning.counting(tmp_path / "m2", name="m", tags={"of": "second"})
            bad = turning.nan_after(tmp_path / "n2", calls=100, name="n")
            releases = site.add(good), site.add(bad)
            site.desire("m", releases[0], rollout=trial)
            site.desire("n", releases[1], rollout={**trial, **HELD["probation"]})
            site.committed("m", releases[0])
            model = site.settled("n")
            sent = stream.stop()
        assert "bad scores" in model["why"]
        assert model["active"]["release"] == 1
        for name in ("m", "n"):
            books = site.book(name)
            eventually(lambda books=books: len(books.corrected()) >= sent, 60, f"{sent} of {name}")
            books.check()
            numbers = sorted(round(row[1]) - BASE for row in books.corrected().values())
            assert numbers == list(range(sent))
        assert {row[3] for row in site.book("n").corrected().values()} == {1}
        assert not site.model("m")["quarantined"]


class Posts:
    """Posts `RATE` readings a second while in the context, each until it is taken."""

    def __init__(self, url):
        self.sent = self.again = 0  # `again`: the readings may then be there twice
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poster")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._over.set()
        self._thread.join()
        return self.sent

    def _run(self):
        began = time.monotonic()
        with httpx.Client(timeout=30) as client:
            while not self._over.wait(0.02):
                due = max(self.sent, int((time.monotonic() - began) * RATE / 4))
                lines = [
                    json.dumps({"p": f"p{n % SENSORS}", **json.loads(reading(n))})
                    for n in range(self.sent, due)
                ]
                if lines:
                    self._post(client, "\n".join(lines))
                self.sent = due

    def _post(self, client, body):
        kind = {"content-type": "application/x-ndjson"}
        while (answer := client.post(self._url, content=body, headers=kind)).status_code != 202:
            assert answer.status_code in (429, 503), answer.text
            self.again += answer.status_code == 503
            time.sleep(0.05)


@pytest.mark.soak
@pytest.mark.parametrize("source", ["http", "qos 0"])
def test_rollouts_over_a_source_that_sends_nothing_twice(broker, tmp_path, source):
    """[rollout-1.1] [rollout-6.1] Files: see test_offline_rollout."""
    stream = {"name": "s", "topic": "plant/+", "key": "{1}", "time": "ts", "qos": 0}
    if source == "http":
        stream = {"name": "s", "source": "http", "key": "p", "time": "ts", "format": "ndjson"}
    with Site(broker, tmp_path, streams=[stream]) as site:
        site.start()
        one, two, three = story.packages(tmp_path)
        site.deploy(one, rollout=AT_ONCE)
        posts = Posts(f"http://{site.http}/v1/streams/s")
        with posts if source == "http" else Stream(broker.port, RATE, qos=0) as sensors:
            site.scored("m", 50)
            second = site.deploy(two, rollout=story.TRIAL)
            bad = site.add(three)
            site.desire("m", bad, rollout=story.BAD_TRIAL)
            model = site.settled("m")
            sent = sensors.stop()
        assert "bad scores" in model["why"]
        assert model["active"]["release"] == second

        books = site.book("m")

        def whole():
            counts, rows = site.model("m")["counts"], len(books.corrected())
            return counts["in"] == counts["scored"] == rows and counts

        eventually(whole, 30, f"{site.model('m')['counts']}")
        taken = books.check()
        numbers = [round(row[1]) - BASE for row in books.corrected().values()]
        assert len(numbers) == taken
        if source == "http":
            assert set(numbers) == set(range(sent))
            assert taken == sent or posts.again
        else:
            assert len(set(numbers)) == taken
            assert taken > 0.9 * sent
        assert all(row[3] != bad for row in books.corrected().values())


@pytest.mark.soak
def test_on_a_quiet_stream_a_shadow_runs_out_of_time_and_a_probation_of_time_alone_passes(
    broker, tmp_path
):
    """[rollout-5.5]"""
    with Site(broker, tmp_path) as site:
        site.start()
        first = site.deploy(turning.counting(tmp_path / "v1", name="m"), rollout=AT_ONCE)
        second = site.add(turning.counting(tmp_path / "v2", name="m", tags={"of": "2"}))
        site.desire("m", second, rollout={"shadow": {"windows": 10, "max": 3.0}})
        model = site.settled("m", 30)
        assert "not shown in time: 0 of 10 windows" in model["why"]
        assert model["active"]["release"] == first
        assert not model["quarantined"]
        site.desire("m", second, rollout={"probation": {"windows": 0, "time": "2s"}})
        site.committed("m", second, 30)
        third = site.add(turning.counting(tmp_path / "v3", name="m", tags={"of": "3"}))
        site.desire("m", third, rollout={"probation": {"windows": 10, "time": "0s"}})
        eventually(lambda: site.model("m").get("phase") == "probation", 30)
        fourth = site.add(turning.counting(tmp_path / "v4", name="m", tags={"of": "4"}))
        site.desire("m", fourth, rollout=AT_ONCE)
        eventually(lambda: f"m:{fourth} is wished for by now" in site.model("m")["why"], 20)
        assert site.command("rollback", {"model": "m"})["code"] == 200
        site.committed("m", fourth, 30)


@pytest.mark.soak
@pytest.mark.parametrize("what", ["newer", "rollback", "kill"])
def test_what_happens_in_the_middle_of_preflight(broker, tmp_path, what):
    """[rollout-1.2] [rollout-2.1] A version whose every run takes seconds is long in it."""
    with scene(broker, tmp_path) as told:
        site = told.site
        second = told.wish("", 2, turning.slow_after, calls=-1, turns=1500)
        told.reached("preflight", second)
        eventually(lambda: len(told.workers()) == 2, 20, "its worker is there")
        if what == "newer":
            third = told.wish("", 3)
            site.committed("m", third)
            eventually(lambda: len(told.workers()) == 1, 30, "nothing is left behind")
        elif what == "rollback":
            assert site.command("rollback", {"model": "m"})["code"] == 200
            assert "rolled back by command" in told.back()["why"]
            eventually(lambda: len(told.workers()) == 1, 30, "nothing is left behind")
        else:
            (worker,) = told.workers()[1:]
            worker.kill()
            eventually(lambda: site.model("m")["why"], 40, "that is told")
            print(f"\nkilled in preflight: {site.model('m')['why']}")
            eventually(lambda: [w for w in told.workers()[1:] if w.pid != worker.pid], 40, "anew")
            told.reached("preflight", second)
            assert site.command("rollback", {"model": "m"})["code"] == 200
            told.back()
        told.ends_well()
