"""A store that an earlier agent wrote is taken over with all that was in it."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from agent.adapters.sqlite import schema
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.journal import SqliteJournal
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.ports import Entry, Record

# As the first agent made it.
FIRST = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE rollout (model TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE document (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE account (
    stream TEXT NOT NULL, model TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (stream, model)
) WITHOUT ROWID;
CREATE TABLE mark (stream TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL,
    rows INTEGER NOT NULL, priority INTEGER NOT NULL,
    stream TEXT NOT NULL, model TEXT NOT NULL, first_seq INTEGER NOT NULL
);
INSERT INTO meta VALUES ('epoch', 3), ('given_up', 5);
INSERT INTO document VALUES ('trust', x'01');
INSERT INTO account VALUES ('s', 'm', x'7b7d');
INSERT INTO mark VALUES ('s', x'02');
PRAGMA user_version=1;
"""


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "agent.db"
    with closing(sqlite3.connect(made)) as connection:
        connection.executescript(FIRST)
        connection.executemany(
            "INSERT INTO outbox (topic, payload, rows, priority, stream, model, first_seq)"
            " VALUES (?, ?, 2, ?, 's', 'm', ?)",
            [(f"t{n}", b"%d" % n, n % 2, n * 2) for n in range(20)],
        )
        connection.commit()
    return made


def as_the_fourth_left(path):
    """The same store, taken over by the agent that came before seals of records."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.settle(connection)
        connection.execute("ALTER TABLE outbox DROP COLUMN seal")
        connection.execute("DELETE FROM meta WHERE name='unsealed'")
        connection.execute("PRAGMA user_version=4")


def drained(box):
    async def all_of_it():
        found = []
        for _ in range(box.depth()["records"]):
            ((i, record),) = await asyncio.wait_for(box.batch(1), 5)
            box.accept([i])
            found.append(record)
        return found

    return asyncio.run(all_of_it())


def test_the_first_agents_store_keeps_records_by_priority_accounts_marks_and_documents(path):
    """[durability-1.7]"""
    database = Database(path)
    box = SqliteOutbox(database, 2**20)
    try:
        assert not path.with_name("agent.db.bad").exists()
        assert (box.epoch(), box.depth()["records"], box.depth()["gaps"]) == (3, 20, 5)
        assert box.accounts() == {("s", "m"): b"{}"}
        assert box.marks() == {"s": b"\x02"}
        assert SqliteJournal(database).load_document("trust") == b"\x01"
        box.add(Entry([Record("new", b"new", 1, 1, "s", "m", 40)]))
        database.call(lambda _: None)
        wanted = [*range(0, 20, 2), *range(1, 20, 2)]
        found = drained(box)
        assert [r.payload for r in found] == [*(b"%d" % n for n in wanted), b"new"]
        assert [r.first_seq for r in found] == [*(n * 2 for n in wanted), 40]
        assert {r.priority for r in found[:10]} == {0}
    finally:
        database.close()
        box.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_waits_unsealed_is_sent_as_it_is_and_what_comes_behind_it_needs_its_seal(path):
    """[durability-1.7] [durability-1.10]"""
    as_the_fourth_left(path)
    for new in range(2):
        database = Database(path)
        box = SqliteOutbox(database, 2**20)
        box.add(Entry([Record("t", b"new", 1, 1, "s", "m", 40 + new)]))
        database.call(lambda _: None)
        database.close()
        box.close()
    assert not path.with_name("agent.db.bad").exists()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert connection.execute("SELECT count(seal) FROM outbox").fetchone() == (2,)
        connection.execute("UPDATE outbox SET payload='nEw' WHERE first_seq=40")
        connection.commit()
    database = Database(path)
    box = SqliteOutbox(database, 2**20)
    try:
        found = asyncio.run(asyncio.wait_for(box.batch(32), 5))
        assert len(found) == 10, "those of the first priority"
        box.accept([i for i, _ in found])
        database.call(lambda _: None)
        found = asyncio.run(asyncio.wait_for(box.batch(32), 5))
        assert [r.first_seq for _, r in found] == [*range(2, 40, 4), 41]
        database.call(lambda _: None)
        assert [(gap.first_seq, gap.rows, gap.reason) for gap in box.gaps()] == [(40, 1, "damaged")]
    finally:
        database.close()
        box.close()


def test_a_store_that_was_taken_over_has_the_tables_of_a_fresh_one(path, tmp_path):
    """[durability-1.7]"""

    def tables(where):
        Database(where).close()
        with closing(sqlite3.connect(where)) as connection:
            named = "SELECT name FROM sqlite_master WHERE type='table' ORDER BY name"
            names = [name for (name,) in connection.execute(named)]
            return {
                name: connection.execute(f"PRAGMA table_info({name})").fetchall()
                for name in names
                if not name.startswith("sqlite_")
            }

    assert tables(path) == tables(tmp_path / "fresh.db")


def test_what_a_later_agent_wrote_is_set_aside_and_not_touched(path):
    """[durability-1.7]"""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    database = Database(path)
    box = SqliteOutbox(database, 2**20, epoch_least=4)
    try:
        assert (box.epoch(), box.depth()["records"]) == (4, 0)
        with closing(sqlite3.connect(path.with_name("agent.db.bad"))) as connection:
            assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (20,)
    finally:
        database.close()
        box.close()


def test_what_a_later_agent_wrote_is_set_aside_though_its_tables_are_ours(tmp_path):
    """[durability-1.7]"""
    path = tmp_path / "agent.db"
    Database(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    with closing(Database(path)) as fresh:
        assert "a later version of the agent wrote it" in fresh.found
    assert path.with_name("agent.db.bad").exists()
