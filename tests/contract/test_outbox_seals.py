"""Records that a disk damages while they wait in the outbox: not sent, kept apart, and told."""

from dataclasses import replace

import pytest

from agent.ports import Entry, Gap
from tests.contract.test_outbox import Opened, add, batch, drained, numbers, record

RECORDS = 40


@pytest.fixture
def opened(tmp_path):
    one = Opened(tmp_path, 2**20, 0)  # nothing of it in memory
    yield one
    one.close()


def spoil(opened, *seqs, as_="payload=x'21'"):
    """As a disk does it, behind our back."""
    marks = ",".join("?" * len(seqs))
    asked = f"UPDATE outbox SET {as_} WHERE first_seq IN ({marks})"
    opened.database.call(lambda c: c.execute(asked, seqs).rowcount)


def told_of(opened, pieces):
    """Ask as the uplink does until so many rows are told as lost; the gaps.  What is sent stays."""
    told = []
    for _ in range(RECORDS):
        if some := opened.box.gaps():
            opened.box.told(some)
            told += some
        elif sum(gap.rows for gap in told) < pieces:
            batch(opened.box)
        opened.commit()
    assert sum(gap.rows for gap in told) == pieces
    return told


def test_a_record_that_the_disk_has_damaged_is_kept_apart_and_its_rows_are_a_gap(opened):
    """[durability-1.10]"""
    add(opened, Entry([record(n) for n in range(5)]))
    spoil(opened, 1, 2)
    assert [r.first_seq for _, r in batch(opened.box)] == [0, 3, 4]
    opened.commit()
    (gap,) = opened.box.gaps()
    assert gap == Gap(gap.id, "s", "m", "damaged", 1, 2, 2)
    depth = {"records": 3, "gaps": 2, "dead_letters": 2}
    assert opened.box.depth().items() >= depth.items()
    box = opened.again()
    assert box.depth().items() >= depth.items()
    assert box.gaps() == [gap], "nobody has heard of it yet"
    assert [r.first_seq for r in drained(box)] == [0, 3, 4]
    opened.commit()
    assert box.depth() == {"records": 0, "bytes": 0, "gaps": 2, "dead_letters": 2}


def test_more_damaged_ones_than_are_sent_at_once_hold_up_nothing(opened):
    """[durability-1.10]"""
    add(opened, Entry([record(n) for n in range(RECORDS)]), Entry([record(RECORDS)]))
    spoil(opened, *range(RECORDS))
    gaps = told_of(opened, RECORDS)
    assert [*numbers(gaps)] == [("m", n) for n in range(RECORDS)]
    assert [r.first_seq for r in drained(opened.box)] == [RECORDS]


def test_an_event_that_is_damaged_is_told_by_the_piece(opened):
    """[durability-1.10]"""
    event = replace(record(7), rows=0, stream="", priority=0)
    add(opened, Entry([event, record(0)]))
    spoil(opened, 7)
    (gap,) = told_of(opened, 1)
    assert gap == Gap(gap.id, "", "m", "damaged", 0, 0, 1)
    assert opened.box.depth()["gaps"] == 0, "no rows among them"


def test_a_message_that_is_whole_goes_out_although_nobody_knows_any_more_whose_it_is(opened):
    """[durability-1.10]"""
    add(opened, Entry([record(n) for n in range(3)]))
    spoil(opened, 1, as_="rows=rows+1, model=x'00'")
    found = batch(opened.box)
    assert [(r.payload, r.rows, r.model) for _, r in found] == [
        *((b"x" * 10, 1, "m"), (b"x" * 10, 0, ""), (b"x" * 10, 1, "m")),
    ]
    opened.box.bury(found[1][0], "too large")
    opened.commit()
    (gap,) = opened.box.gaps()
    assert gap == Gap(gap.id, "", "", "refused", 0, 0, 1)


def test_what_the_disk_makes_nothing_of_is_told_all_the_same(opened):
    """[durability-1.10]"""
    add(opened, Entry([record(n) for n in range(4)]))
    spoil(opened, 1, as_="payload='text', topic=x'ff'")
    spoil(opened, 2, as_="seal=NULL")
    gaps = told_of(opened, 2)
    assert sorted((gap.stream, gap.first_seq, gap.rows) for gap in gaps) == [
        ("", 0, 1),
        ("s", 1, 1),
    ]
    opened.commit()
    assert opened.again().depth()["dead_letters"] == 2
