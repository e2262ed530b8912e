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


def made(folder):
    with closing(Opened(folder)) as one:
        one.journal.save("m", HOME)
        for name, body in KEPT.items():
            one.journal.save_document(name, body)
        account = Account(readings=RECORDS, scored=RECORDS).encode(Shares())
        records = [Record("t", b"{}", 1, 1, "s", "m", n) for n in range(RECORDS)]
        one.box.add(Entry(records, {("s", "m"): account}, {"s": b"mark"}))
        one.database.call(lambda _: None)


def looked_at(one):
    assert one.journal.load("m") == HOME
    assert {name: one.journal.load_document(name) for name in KEPT} == KEPT
    assert read(orjson.loads(KEPT["package:m:1"])) == PACKAGE
    one.box.accounts(), one.box.marks(), one.box.carried("s", "m")
    if one.box.depth()["records"] and not one.box.gaps():
        asyncio.run(asyncio.wait_for(one.box.batch(0, RECORDS), 5))
    one.journal.save("m", HOME)


def damaged(tmp_path, times):
    seed, aside = random.SystemRandom().randrange(2**32), 0
    dice = random.Random(seed)
    made(tmp_path / "whole")
    for n in range(times):
        folder, damage = tmp_path / "one", dice.choice(DAMAGES)
        shutil.copytree(tmp_path / "whole", folder)
        damage(folder / "agent.db", dice)
        try:
            with closing(Opened(folder)) as one:
                looked_at(one)
        except BaseException:
            print(f"seed {seed}, {n}: {damage.__name__}")
            raise
        aside += (folder / "agent.db.bad").exists()
        shutil.rmtree(folder)
    print(
        f"seed {seed}: {times} damages, {aside} set aside; all that a start needs there each time"
    )


def test_what_a_start_needs_is_there_whatever_is_damaged_in_the_database(tmp_path):
    """[durability-1.9]"""
    damaged(tmp_path, 40)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_thousand_damages_of_a_database(tmp_path):
    damaged(tmp_path, 2000)
