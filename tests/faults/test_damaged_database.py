"""A database damaged at random, opened as a start opens it: what a start needs is always there.

The same as in `test_corruption`, without an agent around it, and so a hundred times as often.
"""

import asyncio
import random
import shutil
from contextlib import closing

import orjson
import pytest

from agent.adapters.files import FileVault
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.journal import SqliteJournal
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.app import memory
from agent.core.packages import describe, read
from agent.ports import Entry, Record
from agent.runtime.accounts import Account
from agent.runtime.remembering import Remembering
from agent.runtime.shares import Shares
from tests.contract.test_store import PACKAGE
from tests.faults.test_corruption import DAMAGES
from tests.unit.test_rollout import HOME

KEPT = {
    "desired": b'{"schema": 1, "revision": 3, "models": {}}',
    "stream:m": b"s",
    "package:m:1": orjson.dumps(describe(PACKAGE)),
}
RECORDS = 30


class Opened:
    """All that a start opens of a store."""

    def __init__(self, folder):
        self.database = Database(folder / "agent.db", check=memory.check)
        self.box = SqliteOutbox(self.database, 2**20, epoch_least=2)
        self.journal = Remembering(SqliteJournal(self.database), FileVault(folder / "vault"))

    def close(self):
        self.database.close()
        self.box.close()


def record(n):
    return Record("t", b'{"seq": %d}' % n, 1, 1, "s", "m", n)


def made(folder):
    with closing(Opened(folder)) as one:
        for name, body in KEPT.items():
            one.journal.save_document(name, body)
        one.journal.save("m", HOME)
        account = Account(readings=RECORDS, scored=RECORDS).encode(Shares())
        one.box.add(Entry(list(map(record, range(RECORDS))), {("s", "m"): account}, {"s": b"mark"}))
        one.database.call(lambda _: None)


def looked_at(one):
    assert one.journal.load("m") == HOME
    assert {name: one.journal.load_document(name) for name in KEPT} == KEPT
    assert read(orjson.loads(KEPT["package:m:1"])) == PACKAGE
    one.box.accounts(), one.box.marks(), one.box.carried("s", "m")
    one.journal.save("m", HOME)


def sent_and_told(one):
    """What goes out, and what is told of as lost, as the uplink asks for it."""
    sent, told = [], []
    while one.box.depth()["records"] or one.box.gaps():
        if some := one.box.gaps():
            one.box.told(some)
            told += some
        else:
            found = asyncio.run(asyncio.wait_for(one.box.batch(7), 5))
            one.box.accept([i for i, _ in found])
            sent += [record for _, record in found]
        one.database.call(lambda _: None)
    return sent, told


def accounted(one, *, is_fresh):
    """Each record went out as it was written, or is told; returns how many are told."""
    sent, told = sent_and_told(one)
    if is_fresh:
        assert (sent, told) == ([], [])
        return 0
    left = [(r.topic, r.payload) for r in map(record, range(RECORDS))]
    for r in sent:
        left.remove((r.topic, r.payload))
    assert {gap.reason for gap in told} <= {"damaged"}
    for gap in told:
        for n in range(gap.first_seq, gap.last_seq + 1) if gap.stream else ():
            left.remove((record(n).topic, record(n).payload))
    assert len(left) == sum(gap.rows for gap in told if not gap.stream)
    return sum(gap.rows for gap in told)


def damaged(tmp_path, times, seed):
    dice, aside, told = random.Random(seed), 0, 0
    made(tmp_path / "whole")
    for n in range(times):
        folder, damage = tmp_path / "one", dice.choice(DAMAGES)
        shutil.copytree(tmp_path / "whole", folder)
        path, bad = folder / "agent.db", folder / "agent.db.bad"
        damage(path, dice)
        is_empty = not path.exists() or not path.stat().st_size
        try:
            with closing(Opened(folder)) as one:
                looked_at(one)
                told += accounted(one, is_fresh=is_empty or bad.exists())
        except BaseException:
            print(f"seed {seed}, {n}: {damage.__name__}")
            raise
        aside += bad.exists()
        shutil.rmtree(folder)
    print(
        f"seed {seed}: {times} damages, {aside} set aside; all that a start needs there each time,"
        f" {told} records told as damaged"
    )


def test_what_a_start_needs_is_there_whatever_is_damaged_in_the_database(tmp_path):
    """[durability-1.9]"""
    damaged(tmp_path, 40, 7)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_thousand_damages_of_a_database(tmp_path):
    damaged(tmp_path, 2000, random.SystemRandom().randrange(2**32))


@pytest.mark.parametrize("place", [*range(18, 21), *range(44, 48), *range(59, 64)])
def test_whatever_bit_of_its_first_bytes_is_flipped_a_database_opens(tmp_path, place):
    """[durability-1.1] How it is to be read, and which agent wrote it."""
    made(tmp_path)
    path = tmp_path / "agent.db"
    whole = path.read_bytes()
    for bit in range(8):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        with closing(Opened(tmp_path)) as one:
            looked_at(one)
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"agent.db.bad{suffix}").unlink(missing_ok=True)
