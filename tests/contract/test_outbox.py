"""What every Outbox promises."""

import asyncio

import pytest

from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.ports import Entry, Record
from tests.world.memory import MemoryOutbox


class Opened:
    """An outbox that can be closed and opened again on the same file."""

    def __init__(self, folder, *limits):
        self.folder, self.limits = folder, limits or (2**20,)
        self.open()

    def open(self):
        self.database = Database(self.folder / "agent.db")
        self.box = SqliteOutbox(self.database, *self.limits)
        return self.box

    def close(self):
        self.database.close()
        self.box.close()

    def again(self):
        self.close()
        return self.open()

    def commit(self):
        """Until what was added before is durable."""
        self.database.call(lambda _: None)


class Remembered:
    """The same for the outbox of the simulated world, which a restart does not touch."""

    def __init__(self, folder, bytes_max=2**20, recent_bytes_max=0):
        self.box = MemoryOutbox(bytes_max, by_hand=True)

    def again(self):
        return self.box

    def commit(self):
        self.box.commit()

    def close(self):
        self.box.close()


@pytest.fixture(params=[Opened, Remembered], ids=["sqlite", "memory"])
def make(request, tmp_path):
    """Opens an outbox with these limits, and closes it after the test."""
    made = []

    def open_one(*limits):
        made.append(request.param(tmp_path, *limits))
        return made[-1]

    yield open_one
    for one in made:
        one.close()


@pytest.fixture
def opened(make):
    return make()


def record(n, size=10, **more):
    return Record(f"t/{n}", b"x" * size, rows=1, model="m", stream="s", first_seq=n, **more)


def batch(box, after=0, records_max=16):
    async def ask():
        return await asyncio.wait_for(box.batch(after, records_max), 5)

    return asyncio.run(ask())


def add(opened, *entries):
    for entry in entries:
        ticket = opened.box.add(entry)
    opened.commit()
    assert opened.box.committed() == ticket


def test_records_come_out_in_order_and_stay_until_accepted(opened):
    add(opened, Entry([record(1), record(2)]), Entry([record(3)]))
    found = batch(opened.box)
    assert [r for _, r in found] == [record(1), record(2), record(3)]
    assert batch(opened.box) == found
    opened.box.accept([found[0][0]])
    assert [r.first_seq for _, r in batch(opened.box)] == [2, 3]
    assert [r.first_seq for _, r in batch(opened.box, after=found[1][0])] == [3]


def test_what_was_added_is_there_after_a_restart_with_its_accounts_and_marks(opened):
    """[delivery-2.1]"""
    add(opened, Entry([record(1)], {("s", "m"): b"{}"}, {"s": b"\x00mark"}))
    box = opened.again()
    assert [r for _, r in batch(box)] == [record(1)]
    assert box.accounts() == {("s", "m"): b"{}"}
    assert box.marks() == {"s": b"\x00mark"}


def test_what_was_accepted_is_gone_after_a_restart(opened):
    add(opened, Entry([record(1), record(2)]))
    opened.box.accept([batch(opened.box)[0][0]])
    assert [r.first_seq for _, r in batch(opened.again())] == [2]


def test_ids_rise_across_restarts_even_when_the_box_was_empty(opened):
    add(opened, Entry([record(1)]))
    (first, _) = batch(opened.box)[0]
    opened.box.accept([first])
    box = opened.again()
    add(opened, Entry([record(2)]))
    assert batch(box)[0][0] > first


def test_a_backlog_from_before_is_sent_before_what_is_new(opened):
    add(opened, Entry([record(n) for n in range(5)]))
    box = opened.again()
    add(opened, Entry([record(5)]))
    found = batch(box, records_max=3)
    assert [r.first_seq for _, r in found] == [0, 1, 2]
    assert [r.first_seq for _, r in batch(box, after=found[-1][0])] == [3, 4, 5]


def test_going_back_to_an_older_id_finds_what_memory_has_forgotten(make):
    opened = make(2**20, 300)
    add(opened, Entry([record(n) for n in range(50)]))
    ids = [i for i, _ in batch(opened.box, records_max=100)]
    assert len(ids) == 50
    assert [i for i, _ in batch(opened.box, after=ids[48])] == ids[49:]
    assert [i for i, _ in batch(opened.box, after=ids[9], records_max=5)] == ids[10:15]


@pytest.mark.parametrize("recent_bytes_max", [2**20, 0])
def test_what_was_accepted_out_of_turn_never_comes_again(make, recent_bytes_max):
    opened = make(2**20, recent_bytes_max)
    add(opened, Entry([record(n) for n in range(6)]))
    ids = [i for i, _ in batch(opened.box)]
    opened.box.accept([ids[0], ids[2], ids[3], ids[5]])
    opened.commit()
    assert [r.first_seq for _, r in batch(opened.box)] == [1, 4]
    assert [r.first_seq for _, r in batch(opened.box, after=ids[0])] == [1, 4]
    assert opened.box.depth()["records"] == 2
    opened.box.accept([ids[1], ids[4]])
    opened.commit()
    assert opened.box.depth() == {"records": 0, "bytes": 0, "gaps": 0}


def test_batch_waits_for_the_first_record(opened):
    async def main():
        asked = asyncio.create_task(opened.box.batch(0, 16))
        await asyncio.sleep(0)
        opened.box.add(Entry([record(1)]))
        await asyncio.sleep(0)
        opened.commit()
        return await asyncio.wait_for(asked, 5)

    assert [r for _, r in asyncio.run(main())] == [record(1)]


def test_past_its_bound_the_oldest_of_the_lowest_priority_is_given_up_and_counted(make):
    """[delivery-2.2]"""
    opened = make(5000)
    add(opened, Entry([record(0, priority=0)]))
    for n in range(1, 50):
        add(opened, Entry([record(n, size=200)]))
    opened.commit()
    depth = opened.box.depth()
    assert depth["bytes"] <= 5000
    kept = [r.first_seq for _, r in batch(opened.box, records_max=100)]
    assert kept[0] == 0
    assert kept[1:] == list(range(50 - len(kept) + 1, 50))
    given_up = [gap[2] for gap in opened.box.take_gaps()]
    assert sorted(given_up + kept) == list(range(50))
    assert depth["gaps"] == len(given_up)
    assert opened.box.take_gaps() == []
    assert opened.again().depth() == depth


def test_the_descriptor_is_readable_after_a_commit_and_quiet_once_asked(opened):
    import select

    opened.box.committed()
    opened.box.add(Entry([record(1)]))
    opened.commit()
    assert select.select([opened.box.fileno()], [], [], 5)[0]
    opened.box.committed()
    opened.commit()
    opened.box.committed()
    assert not select.select([opened.box.fileno()], [], [], 0)[0]
