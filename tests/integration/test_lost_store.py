"""What is left when the database is lost or damaged."""

import asyncio
import sqlite3
import time
from contextlib import closing

import pytest

from agent.adapters.files import FileVault
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.journal import SqliteJournal
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.app import memory
from agent.core.errors import RefusedError
from agent.core.trust import UntrustedError
from agent.ports import Entry, Record
from agent.repository import publishing
from agent.repository.layout import Repository
from agent.repository.signed import SignedPublisher
from agent.runtime.trusting import Trusting
from tests.unit.test_rollout import HOME
from tests.world import zoo


class Clock:
    def monotonic(self):
        return time.monotonic()

    def wall(self):
        return time.time()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database at all" * 500),
        lambda path: path.write_bytes(path.read_bytes()[:3000] + b"\xff" * 2000),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
    ],
    ids=["garbage", "scribbled", "cut"],
)
def test_a_damaged_database_is_set_aside_and_a_fresh_one_begun(tmp_path, damage):
    """[durability-1.1]"""
    path = tmp_path / "agent.db"
    database = Database(path)
    for n in range(200):
        SqliteJournal(database).save(f"m{n}", HOME)
    database.close()
    damage(path)
    again = Database(path)
    try:
        SqliteJournal(again).save("m", HOME)
        assert SqliteJournal(again).load("m") == HOME
        assert (tmp_path / "agent.db.bad").exists()
    finally:
        again.close()


def test_the_epoch_rises_when_the_store_was_lost_and_only_then(tmp_path):
    """[durability-1.2]"""

    def epoch(least):
        database = Database(tmp_path / "agent.db")
        box = SqliteOutbox(database, 2**20, epoch_least=least)
        found = box.epoch()
        database.close()
        box.close()
        return found

    assert epoch(1) == 1
    assert epoch(2) == 1
    (tmp_path / "agent.db").unlink()
    assert epoch(2) == 2


def test_the_trust_floor_outlives_the_database(tmp_path):
    """[durability-1.3]"""
    repo = publishing.init(tmp_path / "repo", SignedPublisher())
    package = zoo.mlp(tmp_path / "v", name="m")
    for _ in range(2):
        publishing.add(repo, package, SignedPublisher(), again=True)
    repo = Repository.open(tmp_path / "repo")
    anchor = (tmp_path / "repo" / "root.json").read_bytes()
    vault = FileVault(tmp_path / "vault")

    def trusting(name):
        database = Database(tmp_path / name)
        journal = SqliteJournal(database)
        told = Trusting(anchor, journal, vault, Clock(), built_at=0.0, device="d", groups=())
        return told, database

    first, database = trusting("one.db")
    assert first.resolve(repo.metadata_files(), "m", 2).ref.release == 2
    database.close()
    second, database = trusting("two.db")
    with pytest.raises(RefusedError, match="rollback"):
        second.resolve(repo.metadata_files(), "m", 1)
    database.close()
    (tmp_path / "vault" / "trust").write_bytes(b"scribbled")
    with pytest.raises(UntrustedError, match="corrupt"):
        trusting("three.db")


def test_a_second_agent_on_the_same_store_is_told_so(tmp_path):
    """[durability-1.4]"""
    first = Database(tmp_path / "agent.db")
    try:
        with pytest.raises(RefusedError, match="another agent"):
            Database(tmp_path / "agent.db")
    finally:
        first.close()
    assert sqlite3.connect(tmp_path / "agent.db").execute("PRAGMA quick_check").fetchone()


def test_a_database_that_holds_what_makes_no_sense_is_set_aside(tmp_path):
    """[durability-1.9]"""
    path = tmp_path / "agent.db"
    kept = Database(path)
    kept.call(lambda c: c.execute("INSERT INTO account VALUES ('s', 'm', x'7b')").rowcount)
    kept.close()
    with closing(Database(path, check=memory.check)) as fresh:
        assert fresh.call(lambda c: c.execute("SELECT * FROM account").fetchall()) == []
    assert (tmp_path / "agent.db.bad").exists()


def test_a_record_whose_topic_is_no_text_any_more_holds_up_no_other(tmp_path):
    """[durability-1.10] Python's sqlite3 would not give the row, nor any that is read with it."""
    path = tmp_path / "agent.db"
    database = Database(path)
    box = SqliteOutbox(database, 2**20)
    box.add(Entry([Record(topic, b"x", 1, 1, "s", "m", n) for n, topic in enumerate("ab")]))
    database.call(lambda c: c.execute("UPDATE outbox SET topic=CAST(x'ff' AS TEXT)"
                                      " WHERE first_seq=0").rowcount)  # fmt: skip
    database.close()
    box.close()
    database = Database(path)
    box = SqliteOutbox(database, 2**20)
    try:
        batch = asyncio.run(asyncio.wait_for(box.batch(10), 10))
        assert [record.topic for _, record in batch] == ["b"]
        database.call(lambda _: None)
        assert [(gap.first_seq, gap.rows, gap.reason) for gap in box.gaps()] == [(0, 1, "damaged")]
    finally:
        database.close()
        box.close()
