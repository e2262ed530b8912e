"""What the store does when the disk says no to SQLite, and when the file is damaged in life."""

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest

from agent.adapters.sqlite import doubts
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.journal import SqliteJournal
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.core.errors import UnavailableError
from agent.core.rollout import Rollout
from agent.ports import Entry, Record
from tests.world.refusing import OPEN, refusing
from tests.world.waiting import eventually

pytestmark = pytest.mark.skipif(not OPEN.exists(), reason="no /proc: descriptors are not found")
BACKLOG = 1500  # records of 4 KiB: three times what SQLite keeps in memory
SIZE = 4000


class Opened:
    """A database, its outbox and its journal; `died` is what its thread has ended of."""

    def __init__(self, folder, **more):
        self.path = folder / "agent.db"
        self.database = Database(self.path, **more)
        self.box = SqliteOutbox(self.database, 2**26, 0)
        self.journal = SqliteJournal(self.database)
        self.died = []

    def close(self):
        self.database.close()
        self.box.close()

    def add(self, n, size=10):
        record = Record("t", b"%d " % n + bytes(size), 1, 1, "s", "m", n)
        return self.box.add(Entry([record], {("s", "m"): b"%d" % n}, {"s": b"%d" % n}))

    def batch(self):
        return asyncio.run(asyncio.wait_for(self.box.batch(64), 10))

    def drained(self):
        """The numbers of all that comes out, in order."""
        numbers = []
        while self.box.depth()["records"]:
            some = self.batch()
            self.box.accept([i for i, _ in some])
            numbers += [int(record.payload.split()[0]) for _, record in some]
            self.database.call(lambda _: None)
        return numbers


@pytest.fixture
def opened(tmp_path):
    """Opens one in `tmp_path`, as often as asked for; a thread may die of what SQLite says."""
    made, before = [], threading.excepthook

    def ended(what):
        assert isinstance(what.exc_value, sqlite3.Error), what
        made[-1].died.append(what.exc_value)

    def open_one(**more):
        made.append(Opened(tmp_path, **more))
        return made[-1]

    threading.excepthook = ended
    yield open_one
    for one in made:
        one.close()
    threading.excepthook = before


@pytest.fixture
def backlog(opened):
    """One with more than SQLite keeps in memory, opened anew."""
    one = opened()
    for n in range(BACKLOG):
        one.add(n, SIZE)
    one.close()
    return opened


def wal(path):
    return path.with_name(f"{path.name}-wal")


@pytest.mark.parametrize("what", ["writes", "syncs"])
def test_what_cannot_be_written_now_is_written_later_and_told_meanwhile(opened, what):
    """[durability-7.1]"""
    one = opened()
    before = one.add(0)
    one.journal.save("m", Rollout(restarts=1))
    assert one.database.trouble() == (0, "")
    with refusing(wal(one.path), what):
        for n in range(1, 50):
            ticket = one.add(n)
        with pytest.raises(UnavailableError, match="disk I/O error"):
            one.journal.save("m", Rollout(restarts=2))
        eventually(lambda: one.box.trouble().errors > 2, 10, "it is tried again")
        assert "disk I/O error" in one.box.trouble().why
        assert one.box.committed() == before, "what is not durable is nobody's"
        ticket = one.add(50)  # behind those that wait
    eventually(lambda: one.box.committed() == ticket, 10)
    one.journal.save("m", Rollout(restarts=3))
    one.close()
    one = opened()
    assert one.database.found == ""
    assert one.journal.load("m").restarts == 3
    assert (one.box.marks(), one.box.accounts()) == ({"s": b"50"}, {("s", "m"): b"50"})
    assert one.drained() == list(range(51))


def test_what_the_disk_does_not_give_now_is_given_later(backlog):
    """[durability-7.2]"""
    one = backlog()
    with refusing(one.path, "reads"):
        asking = threading.Thread(target=lambda: got.extend(one.batch()))
        got = []
        asking.start()
        eventually(lambda: one.box.trouble().errors > 1, 10, "it is asked for again")
        one.add(BACKLOG)
        assert not got
    asking.join(10)
    assert len(got) == 64
    assert one.drained() == list(range(BACKLOG + 1))
    eventually(lambda: one.box.trouble().why == "", 15, "it is told no more")
    assert one.box.trouble().errors > 1


def test_what_the_disk_does_not_give_for_long_is_damage(backlog):
    """[durability-7.3]"""
    one = backlog(unread_s_max=0.6)
    with refusing(one.path, "reads"):
        with pytest.raises(UnavailableError, match="closed"):
            one.batch()
        eventually(lambda: one.died, 10)
    assert "disk I/O error" in str(one.died)
    assert len(doubts.noted(one.path)) == 1


def scribble(path, page):
    """What no page of SQLite's begins with; written as another process would."""
    with path.open("r+b") as file:
        file.seek(4096 * page)
        file.write(b"\xee" * 4096)


def test_a_page_that_turns_out_to_be_damaged_ends_the_process_and_its_start_sets_it_aside(backlog):
    """[durability-7.3]"""
    one = backlog()
    for page in range(20, 60):
        scribble(one.path, page)
    with pytest.raises(UnavailableError, match="closed"):
        one.drained()
    eventually(lambda: one.died, 10)
    assert "malformed" in str(one.died)
    with pytest.raises(UnavailableError):
        one.journal.save("m", Rollout())
    one.close()
    again = backlog()
    assert "was damaged" in again.database.found
    assert again.box.depth()["records"] == 0
    assert one.path.with_name("agent.db.bad").exists()
    assert doubts.noted(one.path) == (), "they were about the other one"


def test_whoever_waits_when_it_turns_out_to_be_damaged_is_told(backlog):
    one = backlog()
    for page in range(20, 60):
        scribble(one.path, page)
    asked = [one.database.future(lambda c: c.execute("SELECT total(length(payload)) FROM outbox")
             .fetchone()) for _ in range(3)]  # fmt: skip
    assert all(isinstance(future.exception(10), sqlite3.DatabaseError) for future in asked)


def test_a_job_that_no_disk_is_to_blame_for_ends_the_process_unless_somebody_waits_for_it(opened):
    one = opened()
    with pytest.raises(UnavailableError, match="no such table"):
        one.database.call(lambda c: c.execute("DELETE FROM nowhere").rowcount)
    assert one.box.trouble() == (0, ""), "no disk is to blame for it"
    ticket = one.add(1)
    eventually(lambda: one.box.committed() == ticket, 10)
    one.database.submit(lambda c: c.execute("DELETE FROM nowhere").rowcount, lambda _: None)
    eventually(lambda: one.died, 10)
    assert doubts.noted(one.path) == (), "nor is the file"


def marked(name):
    return lambda c: c.execute("INSERT INTO mark VALUES (?, ?)", (name, b"")).rowcount


def test_who_asks_for_what_fails_is_told_and_no_other_order_is_lost_or_waits_for_it(opened):
    one, begun, going = opened(), threading.Event(), threading.Event()
    one.database.submit(lambda _: begun.set() or going.wait(10), lambda _: None)
    assert begun.wait(10)
    done = []
    one.database.submit(marked("before"), lambda _: done.append("before"))
    fails = one.database.future(lambda c: c.execute("DELETE FROM nowhere").rowcount)
    one.database.submit(marked("behind"), lambda _: done.append("behind"))
    last = one.database.future(lambda _: list(done))
    going.set()
    assert "no such table" in str(fails.exception(10))
    assert last.result(10) == done == ["before", "behind"]
    assert one.box.marks() == {"before": b"", "behind": b""}, "each once: twice would have failed"


def test_a_doubt_has_the_start_look_and_a_second_one_soon_after_ends_it(opened):
    """[durability-7.4]"""
    one = opened()
    one.add(1)
    one.close()
    doubts.note(one.path, "found to be damaged\nwhile running")
    kept = opened()
    assert "found to be damaged while running" in kept.database.found
    assert "it is whole" in kept.database.found
    assert kept.drained() == [1]
    kept.close()
    doubts.note(one.path, "again")
    fresh = opened()
    assert "(again)" in fresh.database.found
    fresh.add(1)
    fresh.database.call(lambda _: None)
    assert wal(fresh.path).exists(), "whoever looked has let go before, and not of this one"
    assert one.path.with_name("agent.db.bad").exists()
    fresh.close()
    assert opened().database.found == ""


def test_a_long_life_takes_a_doubt_away(opened):
    """[durability-7.4]"""
    one = opened()
    doubts.note(one.path, "once")
    one.close()
    opened(believed_s=1000.0).close()
    assert len(doubts.noted(one.path)) == 1
    opened(believed_s=-1.0).close()
    assert doubts.noted(one.path) == ()


def test_what_cannot_be_read_at_a_start_is_weather_once_and_then_set_aside(tmp_path):
    """[durability-7.4] Reading the memory of a process where it has none is EIO."""
    path = tmp_path / "agent.db"
    path.symlink_to("/proc/self/mem")
    with pytest.raises(UnavailableError, match="disk I/O error"):
        Database(path)
    with closing(Database(path)) as fresh:
        assert "was damaged (disk I/O error)" in fresh.found
        assert fresh.call(lambda c: c.execute("SELECT count(*) FROM outbox").fetchone()) == (0,)
    assert path.with_name("agent.db.bad").is_symlink()


def test_what_is_no_file_is_said_so_and_nothing_is_set_aside(tmp_path):
    (tmp_path / "agent.db").mkdir()
    for _ in range(3):
        with pytest.raises(UnavailableError, match="unable to open"):
            Database(tmp_path / "agent.db")
    assert [path.name for path in tmp_path.iterdir()] == ["agent.db"]


def test_a_database_that_cannot_be_opened_says_what_to_set(tmp_path):
    (tmp_path / "agent.db").mkdir()
    with pytest.raises(UnavailableError, match=r"agent\.db cannot be opened .*; set store\.dir"):
        Database(tmp_path / "agent.db")
