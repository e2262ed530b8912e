"""What every Outbox promises."""

import asyncio
import tempfile
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.adapters.sqlite.ageing import Ageing
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.adapters.sqlite.packing import Packing
from agent.ports import Carried, Entry, Gap, Record
from tests.world.hours import HandClock
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
        """Until what was added before is durable, and what had to go for it has gone."""
        self.database.call(lambda _: None)
        self.database.call(lambda _: None)


class Packed(Opened):
    """The same that packs whatever it can as soon as it can."""

    def open(self):
        self.database = Database(self.folder / "agent.db")
        packing = Packing(lambda bodies: [(len(bodies), b"".join(bodies))], every_bytes=1000)
        self.box = SqliteOutbox(self.database, *self.limits, packing=packing)
        return self.box


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


def batch(box, records_max=16):
    async def ask():
        return await asyncio.wait_for(box.batch(records_max), 5)

    return asyncio.run(ask())


def drained(box, records_max=16):
    """All there is, as the uplink takes it."""
    found, there = [], box.depth()["records"]
    while len(found) < there:
        box.told(box.gaps())
        some = batch(box, records_max=records_max)
        box.accept([i for i, _ in some])
        found += [record for _, record in some]
    return found


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


def test_what_a_model_carries_grows_by_rows_and_begins_anew_with_number_0(opened):
    def add(*rows):
        for number, body in rows:
            opened.box.add(Entry(carried={("s", "m"): Carried(number, body)}))
        opened.commit()
        opened.again()
        return list(opened.box.carried("s", "m"))

    assert add((0, b"a"), (1, b"b")) == [(0, b"a"), (1, b"b")]
    assert add((2, b"c")) == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert add((0, b"d"), (1, b"e")) == [(0, b"d"), (1, b"e")]
    assert add((0, b"")) == []
    assert list(opened.box.carried("s", "another")) == []


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


def test_a_backlog_from_before_is_sent_before_what_is_new(opened):
    add(opened, Entry([record(n) for n in range(5)]))
    box = opened.again()
    add(opened, Entry([record(5)]))
    assert [r.first_seq for r in drained(box, records_max=3)] == [0, 1, 2, 3, 4, 5]


def test_what_memory_has_forgotten_is_read_back_in_order(make):
    opened = make(2**20, 300)
    add(opened, Entry([record(n) for n in range(50)]))
    assert [r.first_seq for r in drained(opened.box, records_max=7)] == list(range(50))


@pytest.mark.parametrize("recent_bytes_max", [2**20, 0])
def test_what_was_accepted_out_of_turn_never_comes_again(make, recent_bytes_max):
    opened = make(2**20, recent_bytes_max)
    add(opened, Entry([record(n) for n in range(6)]))
    ids = [i for i, _ in batch(opened.box)]
    opened.box.accept([ids[0], ids[2], ids[3], ids[5]])
    opened.commit()
    assert [r.first_seq for _, r in batch(opened.box)] == [1, 4]
    assert opened.box.depth()["records"] == 2
    opened.box.accept([ids[1], ids[4]])
    opened.commit()
    assert opened.box.depth() == {"records": 0, "bytes": 0, "gaps": 0, "dead_letters": 0}


def test_batch_waits_for_the_first_record(opened):
    async def main():
        asked = asyncio.create_task(opened.box.batch(16))
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
    assert batch(opened.box) == [], "gaps first"
    (gap,) = opened.box.gaps()
    assert opened.again().depth() == depth
    assert opened.box.gaps() == [gap], "nobody has heard of it yet"
    kept = [r.first_seq for r in drained(opened.box)]
    assert kept == [0, *range(50 - len(kept) + 1, 50)]
    assert gap == Gap(gap.id, "s", "m", "full", 1, kept[1] - 1, kept[1] - 1)
    assert depth["gaps"] == gap.rows


@pytest.mark.parametrize("recent_bytes_max", [2**20, 300])
def test_events_go_before_scores_and_scores_in_their_order(make, recent_bytes_max):
    """[delivery-2.3]"""
    opened = make(2**20, recent_bytes_max)
    for n in range(0, 40, 4):
        scores = [record(n), record(n + 1), record(n + 2)]
        add(opened, Entry([*scores, record(n + 3, priority=0)]))
    found = [r.first_seq for r in drained(opened.box)]
    events = list(range(3, 40, 4))
    assert found == [*events, *(n for n in range(40) if n not in events)]


def test_what_is_being_sent_is_not_given_up(make):
    opened = make(3000)
    add(opened, Entry([record(n, size=200) for n in range(8)]))
    sending = batch(opened.box, records_max=4)
    add(opened, *(Entry([record(n, size=200)]) for n in range(8, 30)))
    opened.commit()
    opened.box.accept([i for i, _ in sending])
    (gap,) = opened.box.gaps()
    assert gap.first_seq == 4


def test_a_gap_that_grows_while_it_is_told_is_told_to_its_end(make):
    """[delivery-2.4]"""
    opened = make(3000)
    add(opened, *(Entry([record(n, size=200)]) for n in range(20)))
    opened.commit()
    (told,) = opened.box.gaps()
    add(opened, *(Entry([record(n, size=200)]) for n in range(20, 40)))
    opened.commit()
    opened.box.told([told])
    assert told.id not in [gap.id for gap in opened.box.gaps()], "not told twice meanwhile"
    opened.commit()
    (rest,) = opened.box.gaps()
    assert rest.first_seq == told.last_seq + 1
    assert told.rows + rest.rows == opened.box.depth()["gaps"]


def test_a_record_the_broker_will_never_take_is_kept_apart_and_its_rows_are_a_gap(opened):
    """[delivery-2.5]"""
    add(opened, Entry([record(n) for n in range(3)]))
    ids = [i for i, _ in batch(opened.box)]
    opened.box.bury(ids[1], "too large")
    opened.commit()
    (gap,) = opened.box.gaps()
    assert (gap.reason, gap.first_seq, gap.last_seq, gap.rows) == ("refused", 1, 1, 1)
    assert [r.first_seq for r in drained(opened.box)] == [0, 2]
    opened.commit()
    want = {"records": 0, "bytes": 0, "gaps": 1, "dead_letters": 1}
    assert opened.box.depth() == want == dict(opened.again().depth())


def test_events_that_were_given_up_are_counted_too(make):
    opened = make(1000)
    events = [replace(record(n, size=200, priority=0), rows=0, stream="") for n in range(20)]
    add(opened, *(Entry([event]) for event in events))
    opened.commit()
    assert sum(gap.rows for gap in opened.box.gaps()) + opened.box.depth()["records"] == 20
    assert opened.box.depth()["gaps"] == 0, "no rows among them"


STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 5), st.integers(0, 3), st.integers(1, 300)),
    st.tuples(st.just("send"), st.integers(1, 16), st.integers(0, 16)),
    st.tuples(st.sampled_from(["bury", "tell", "again"])),
)


@given(
    st.lists(STEPS, max_size=40), st.sampled_from([1500, 6000]), st.sampled_from([0, 800, 2**20])
)
@example(  # packed in rounds, of which the first is over before there is somebody to ask
    [("add", 2, 1, 1), ("add", 5, 0, 175), ("add", 3, 0, 270), ("again",)], 6000, 800
)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_sent_and_gaps_and_kept_are_what_was_produced_exactly(steps, bytes_max, recent_bytes_max):
    """[delivery-2.4]"""
    for kind in (Opened, Packed, Remembered):
        with tempfile.TemporaryDirectory() as folder:
            opened = kind(Path(folder), bytes_max, recent_bytes_max)
            try:
                assert balance(opened, steps)
            finally:
                opened.close()


def balance(opened, steps):
    seqs, produced, sent, told = Counter(), Counter(), Counter(), Counter()
    for step in steps:
        box = opened.box
        match step:
            case ("add", records, priority, size):
                made = []
                for rows in range(1, records + 1):
                    name = f"m{priority}"
                    body = bytes(size)
                    made.append(Record("t", body, rows, priority, "s", name, seqs[name]))
                    produced.update((name, n) for n in range(seqs[name], seqs[name] + rows))
                    seqs[name] += rows
                add(opened, Entry(made))
                opened.commit()
            case ("send", records_max, taken) if box.depth()["records"]:
                some = batch(box, records_max=records_max)[:taken]
                box.accept([i for i, _ in some])
                for _, r in some:
                    sent.update((r.model, n) for n in range(r.first_seq, r.first_seq + r.rows))
            case ("bury",) if box.depth()["records"]:
                for i, _ in batch(box, records_max=1):
                    box.bury(i, "no")
            case ("tell",):
                some = box.gaps()
                box.told(some)
                told.update(numbers(some))
            case ("again",):
                opened.commit()
                opened.again()
        opened.commit()
    told.update(numbers(rest := opened.box.gaps()))
    while rest:
        opened.box.told(rest)
        opened.commit()
        told.update(numbers(rest := opened.box.gaps()))
    while opened.box.depth()["records"]:  # asked for each time: what is packed meanwhile is fewer
        some = batch(opened.box)
        opened.box.accept([i for i, _ in some])
        for _, r in some:
            sent.update((r.model, n) for n in range(r.first_seq, r.first_seq + r.rows))
        opened.commit()
    return sent + told == produced


def numbers(gaps):
    for gap in gaps:
        assert gap.rows == gap.last_seq - gap.first_seq + 1
        yield from ((gap.model, n) for n in range(gap.first_seq, gap.last_seq + 1))


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


def test_what_waited_too_long_is_given_up_and_told(tmp_path):
    """[delivery-2.6]"""
    clock = HandClock()
    ageing = Ageing(60.0, clock.monotonic, clock.wall)
    database = Database(tmp_path / "agent.db")
    box = SqliteOutbox(database, 2**20, ageing=ageing)
    try:
        for n in range(4):
            box.add(Entry([record(n)]))
            clock.forward(20.0)
        database.call(lambda _: None)
        box.tidy()
        database.call(lambda _: None)
        (gap,) = box.gaps()
        assert (gap.reason, gap.first_seq, gap.last_seq, gap.rows) == ("expired", 0, 0, 1)
        assert [r.first_seq for r in drained(box)] == [1, 2, 3]
    finally:
        database.close()
        box.close()


def test_what_was_sent_is_no_gap_even_if_it_grew_too_old_before_it_could_be_forgotten(tmp_path):
    """[delivery-2.4]"""
    clock, go_on = HandClock(), threading.Event()
    database = Database(tmp_path / "agent.db")
    box = SqliteOutbox(database, 2**20, ageing=Ageing(60.0, clock.monotonic, clock.wall))
    try:
        box.add(Entry([record(n) for n in range(4)]))
        database.call(lambda _: None)
        sent = batch(box, records_max=2)
        database.submit(lambda _: go_on.wait(10), lambda _: None)  # the disk is slow
        clock.forward(100.0)
        box.tidy()
        box.accept([i for i, _ in sent])
        batch(box, records_max=2)
        go_on.set()
        database.call(lambda _: None)
        assert box.gaps() == [], "two were sent, and two are being sent"
        assert [r.first_seq for r in drained(box)] == [2, 3]
    finally:
        go_on.set()
        database.close()
        box.close()
