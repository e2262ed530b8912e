"""Many small records become few in the outbox: every row, in its order, under its number, once."""

from dataclasses import replace

import pytest

from agent.adapters.sqlite.ageing import Ageing
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.adapters.sqlite.packing import Packing
from agent.ports import Entry
from tests.contract.test_outbox import Packed, add, batch, drained, record
from tests.world.hours import HandClock


def like(n, **more):
    """A record whose rows may be joined to those of others."""
    return replace(record(n, **more), topic="t")


@pytest.fixture
def packed(tmp_path):
    one = Packed(tmp_path, 2**20, 0)
    yield one
    one.close()


def settled(opened):
    """Until nothing is left to be packed."""
    depth = None
    while depth != (depth := dict(opened.box.depth())):
        opened.commit()


def test_small_records_that_memory_has_let_go_become_few_with_the_same_rows(packed):
    """[delivery-2.7]"""
    for n in range(0, 200, 10):
        add(packed, *(Entry([like(seq)]) for seq in range(n, n + 10)))
    settled(packed)
    few = packed.box.depth()
    assert few["records"] < 40
    assert packed.database.call(lambda c: c.execute("SELECT count(*) FROM outbox").fetchone()) == (
        few["records"],
    )
    packed.again()
    settled(packed)
    found = drained(packed.box)
    assert [r.first_seq for r in found] == sorted(r.first_seq for r in found)
    assert sum(r.rows for r in found) == 200
    assert b"".join(r.payload for r in found) == b"x" * 2000
    packed.commit()
    assert packed.box.depth() == {"records": 0, "bytes": 0, "gaps": 0, "dead_letters": 0}


def test_nothing_is_packed_across_what_must_stay_between(packed):
    apart = [like(0), like(1), like(2, size=4000), like(3), like(4), like(9)]
    events = [replace(like(0, priority=0), rows=0, stream="") for _ in range(3)]
    others = [replace(like(n), model="other") for n in range(5, 7)]
    add(packed, Entry([*apart[:4], *others, *apart[4:], *events]))
    settled(packed)
    found = [(r.model, r.first_seq, r.rows) for r in drained(packed.box)]
    assert found[:3] == 3 * [("m", 0, 0)]
    assert found[3:] == [
        *(("m", 0, 2), ("m", 2, 1), ("other", 5, 2)),
        *(("m", 3, 2), ("m", 9, 1)),
    ]


def test_what_is_being_sent_or_was_is_not_packed(packed):
    """[delivery-2.7]"""
    add(packed, *(Entry([like(n)]) for n in range(4)))
    sending = batch(packed.box, records_max=2)
    add(packed, *(Entry([like(n)]) for n in range(4, 40)))
    packed.box.accept([i for i, _ in sending])
    settled(packed)
    rest = drained(packed.box)
    sent = sum(r.rows for _, r in sending)
    assert rest[0].first_seq == sent
    assert sent + sum(r.rows for r in rest) == 40


def test_what_was_packed_is_too_old_when_the_last_of_it_is(tmp_path):
    clock = HandClock()
    database = Database(tmp_path / "agent.db")
    packing = Packing(lambda bodies: [(len(bodies), b"".join(bodies))], every_bytes=1000)
    ageing = Ageing(60.0, clock.monotonic, clock.wall)
    box = SqliteOutbox(database, 2**20, 0, ageing=ageing, packing=packing)
    try:
        for n in range(4):
            box.add(Entry([like(n)]))
            clock.forward(20.0)
        for _ in range(5):
            database.call(lambda _: None)
        box.tidy()
        database.call(lambda _: None)
        gone = sum(gap.rows for gap in box.gaps())
        assert gone in {0, 1}
        assert sum(r.rows for r in drained(box)) == 4 - gone
    finally:
        database.close()
        box.close()
