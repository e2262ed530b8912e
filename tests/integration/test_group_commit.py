"""While there is always something to commit, commits take more along; nobody waits for nothing."""

import time

import pytest

from agent.adapters.sqlite.database import Database
from tests.world.waiting import eventually

GATHER_S = 1.0  # long, beside what a busy disk takes


@pytest.fixture
def database(tmp_path):
    it = Database(tmp_path / "agent.db", gather_s=GATHER_S)
    yield it
    it.close()


def insert(n):
    return lambda connection: connection.execute("INSERT INTO mark VALUES (?, ?)", (str(n), b""))


def test_orders_that_follow_a_commit_closely_share_the_next(database):
    commits, done = [], []
    database.call(insert(0))
    database.watch(lambda: commits.append(len(done)))
    for n in range(1, 6):
        database.submit(insert(n), lambda _: done.append(time.monotonic()))
        time.sleep(0.01)  # each might have had a commit of its own
    eventually(lambda: len(done) == 5)
    assert commits == [5]


def test_after_a_pause_a_commit_begins_at_once(database):
    time.sleep(GATHER_S)
    done, began = [], time.monotonic()
    database.submit(insert(1), lambda _: done.append(time.monotonic()))
    eventually(lambda: done)
    assert done[0] - began < GATHER_S / 2


def test_who_waits_for_a_future_does_not_wait_for_others(database):
    began = time.monotonic()
    for n in range(10):
        database.call(insert(n))
    assert time.monotonic() - began < GATHER_S


def test_what_is_gathered_when_it_closes_is_committed(tmp_path):
    database = Database(tmp_path / "agent.db", gather_s=GATHER_S)
    database.submit(insert(1), lambda _: None)
    database.close()
    again = Database(tmp_path / "agent.db")
    assert again.call(lambda c: c.execute("SELECT count(*) FROM mark").fetchone()) == (1,)
    again.close()
