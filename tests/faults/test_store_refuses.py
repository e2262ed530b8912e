"""The disk of the store says no to SQLite while the agent runs, or has spoilt what it holds."""

import contextlib
import time

import pytest

from agent.runtime.watchdog import EXIT_STATUS
from tests.world import zoo
from tests.world.refusing import FOLDER, OPEN
from tests.world.site import Site
from tests.world.stream import Stream
from tests.world.waiting import eventually

pytestmark = pytest.mark.skipif(not OPEN.exists(), reason="no /proc: descriptors are not found")
RATE = 100.0


class Refusing(Site):
    """A site whose agent runs on a disk that says no when it is told to."""

    def __init__(self, broker, folder):
        super().__init__(broker, folder)
        self.program = "tests.world.refusing"
        self.environ = {FOLDER: str(folder)}
        self.database = folder / "store" / "agent.db"

    @contextlib.contextmanager
    def refuses(self, what, suffix=""):
        told = self.folder / "what"
        (self.folder / "next").write_text(f"{what} {self.database}{suffix}")
        (self.folder / "next").rename(told)
        self._done("begun")
        try:
            yield
        finally:
            told.unlink()
        self._done("over")

    def _done(self, word):
        done = self.folder / "done"

        def is_done():
            return done.exists() and done.read_text() == word

        eventually(is_done, 20, f"{word}; {self.log()[-1500:]}")

    def disk(self):
        """Errors, and the reasons that name the disk, as they are reported."""
        state = self.state() or {}
        told = [why for why in state.get("reasons", ()) if "the disk says no" in why]
        return (state.get("outbox") or {}).get("disk_errors", 0), told


def told(site, kind, part):
    return eventually(
        lambda: [e for e in list(site.events) if e["type"] == kind and part in e["why"]],
        20,
        f"{kind}: {part}; {site.events}",
    )


@pytest.mark.parametrize("what", ["writes", pytest.param("syncs", marks=pytest.mark.soak)])
def test_a_disk_that_takes_nothing_for_a_while_costs_time_alone(broker, tmp_path, what):
    """[durability-7.1]"""
    with Refusing(broker, tmp_path) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        process = site.process.pid
        with Stream(broker.port, RATE) as stream:
            site.scored("m", 50)
            with site.refuses(what, "-wal"):
                eventually(lambda: site.disk()[0] > 2 and site.disk()[1], 20, "it is said")
                second = site.add(zoo.mlp(tmp_path / "v2", bias=1.0, name="m"))
                site.desire("m", second)
                said = site.disk()[0]
                eventually(lambda: site.disk()[0] > said + 2, 20, "it is tried on")
            site.committed("m", second)
            eventually(lambda: site.disk()[1] == [], 20, "it is said no more")
            sent = stream.stop()
        books = site.scored("m", sent)
        assert books.check() == sent
        told(site, "degraded", "the disk says no")
        told(site, "recovered", "the disk says no")
        assert site.process.pid == process
        assert site.process.poll() is None, site.log()[-3000:]


def test_a_database_that_is_spoilt_in_life_ends_the_process_and_the_next_scores_on(
    broker, tmp_path
):
    """[durability-7.3]"""
    with Refusing(broker, tmp_path) as site:
        site.start()
        release = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        site.readings([{"ts": time.time(), **{f"f{i}": 0.1 for i in range(8)}}])
        site.scored("m", 1)
        for suffix in ("", "-wal"):
            path = site.database.with_name(site.database.name + suffix)
            path.write_bytes(b"\xee" * path.stat().st_size)
        (tmp_path / "next").write_text(f"forgotten {site.database}")
        (tmp_path / "next").rename(tmp_path / "what")

        def has_ended():
            site.publish("plant/p1", b'{"ts": 1}')  # whatever is counted has to be written
            return site.process.poll() is not None

        eventually(has_ended, 20, site.log()[-3000:])
        assert site.process.wait() == EXIT_STATUS, site.log()[-3000:]
        (tmp_path / "what").unlink()
        assert "database damaged, ending" in site.log()
        site.start(ready=True)
        eventually(lambda: site.model("m")["active"]["release"] == release, 20)
        told(site, "degraded", "was damaged")
        before = len(site.book("m").arrived)
        site.readings([{"ts": time.time(), **{f"f{i}": 0.1 for i in range(8)}}])
        eventually(lambda: len(site.book("m").arrived) > before, 20, "it scores again")
        assert site.database.with_name("agent.db.bad").exists()
