"""Records that a disk has damaged while they waited: never sent as they are, and told exactly."""

import sqlite3
from collections import Counter
from contextlib import closing
from itertools import pairwise

import pytest

from agent.adapters.sqlite import gaps, schema, statements
from agent.adapters.sqlite.packing import Packing
from agent.adapters.sqlite.statements import span_of
from agent.ports import Entry, Record

ALL = 2**40
RECORDS, ROWS = 6, 3
FIRST = 1000  # so that all take the same room
FIELDS = {
    "topic": "'edge/d/scores/n'",
    "payload": "x'00'",
    "rows": "rows+1",
    "stream": "'t'",
    "model": "'n'",
    "first_seq": "first_seq+1",
    "at": "at+1",
}
OF_LABELS = ("rows", "stream", "model", "first_seq", "at")


def seq_of(n):
    return FIRST + ROWS * n


def body_of(n):
    return b'{"seq":%d,"key":["pump-7","pump-8","pump-9"],"score":[0.25,0.5,0.75]}' % seq_of(n)


def record(n):
    return Record("edge/d/scores/m", body_of(n), ROWS, 1, "s", "m", seq_of(n))


@pytest.fixture
def table():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.settle(connection)
        statements.take_stock(connection, 1)
        yield connection


def put(table, numbers, *, at=8.5):
    """Returns their ids."""
    ids = [span_of(1)[0] + 1 + n for n in numbers]
    statements.insert(table, Entry([record(n) for n in numbers]), ids, at)
    return ids


def spoil(table, record_id, field, value=None):
    table.execute(f"UPDATE outbox SET {field}={value or FIELDS[field]} WHERE id=?", (record_id,))


def drained(table):
    """As the outbox does it: what is sent, and what is told."""
    statements.take_stock(table, 1)
    sent = []
    for priority in range(schema.PRIORITIES):
        found, damaged = statements.select(table, *span_of(priority), 100)
        statements.condemn(table, damaged)
        statements.delete(table, [i for i, _ in found])
        sent += [one for _, one in found]
    assert table.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
    return sent, gaps.untold(table)


def left_of(sent, told):
    """The records neither sent as they were written nor named by a gap; none is both."""
    whole = {(one.topic, one.payload): n for n, one in enumerate(map(record, range(RECORDS)))}
    left = list(range(RECORDS))
    for one in sent:
        left.remove(whole[one.topic, one.payload])
    for gap in told:
        if gap.stream:
            assert (gap.stream, gap.model, gap.reason) == ("s", "m", "damaged")
            assert gap.rows == gap.last_seq - gap.first_seq + 1
            for seq in range(gap.first_seq, gap.last_seq + 1, ROWS):
                left.remove((seq - FIRST) // ROWS)
    return left


# ---- whatever bit --------------------------------------------------------------------------------


def test_whatever_bit_of_a_waiting_record_is_flipped_it_is_sent_whole_or_told_exactly(table):
    """[durability-1.10]"""
    put(table, range(RECORDS))
    file = table.serialize()
    at = [file.index(body_of(n)) for n in range(RECORDS)]
    (size,) = {before - behind for before, behind in pairwise(at)}
    begin = at[3] + len(body_of(3)) - size  # the end of the payload of the next one
    seen, nameless = Counter(), set()
    for place in range(begin, begin + size):
        for bit in range(8):
            spoilt = bytearray(file)
            spoilt[place] ^= 1 << bit
            outcome = flipped(bytes(spoilt))
            seen[outcome] += 1
            if outcome == "told by the piece":
                nameless.add(place)
            if at[3] <= place < at[3] + len(body_of(3)):
                assert outcome == "told to the row", place
    print(size, "bytes, each bit of them:", dict(seen), "by the piece in", len(nameless), "bytes")
    assert seen["sent"] >= 8 * 15, "labels alone are spoilt"
    assert len(nameless) <= 4, "how long fields are, which moves all of them"


def flipped(file):
    """How it ends for the one record that a bit of `file` was flipped in."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as table:
        table.text_factory = lambda raw: raw.decode(errors="replace")
        table.deserialize(file)
        try:
            if table.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                return "set aside"
            sent, told = drained(table)
        except sqlite3.DatabaseError:
            return "set aside"
        left, pieces = left_of(sent, told), sum(gap.rows for gap in told if not gap.stream)
        assert len(left) == pieces <= 1, (sent, told)
        (letters,) = table.execute("SELECT count(*) FROM dead_letter").fetchone()
        assert len(sent) + statements.take_stock(table, 1).dead_letters == RECORDS
        assert letters <= 1
    return "told by the piece" if pieces else "told to the row" if len(sent) < RECORDS else "sent"


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_another_is_noticed_and_a_whole_message_is_still_sent(table, field):
    """[durability-1.10]"""
    ids = put(table, range(RECORDS))
    spoil(table, ids[2], field)
    sent, told = drained(table)
    assert left_of(sent, told) == []
    if field in OF_LABELS:
        assert told == ()
        (one,) = [one for one in sent if one.payload == body_of(2)]
        assert (one.rows, one.stream, one.model, one.first_seq) == (0, "", "", 0)
    else:
        assert [(gap.first_seq, gap.rows) for gap in told] == [(seq_of(2), ROWS)]
        found = table.execute("SELECT why FROM dead_letter").fetchall()
        assert found == [(statements.SPOILT,)]


@pytest.mark.parametrize("seal", ["NULL", "x''", "0", "'none'"])
def test_a_seal_that_is_missing_is_one_that_does_not_hold(table, seal):
    """[durability-1.10]"""
    ids = put(table, range(RECORDS))
    spoil(table, ids[2], "seal", seal)
    if seal == "'none'":
        assert statements.select(table, *span_of(1), 100)[1] == []
        return
    sent, told = drained(table)
    assert left_of(sent, told) == [2]
    assert [(gap.stream, gap.model, gap.rows) for gap in told] == [("", "", 1)]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_not_there_any_more_is_noticed_too(table, field):
    """[durability-1.10] As no statement could write it, but a disk can."""
    (made,) = table.execute("SELECT sql FROM sqlite_master WHERE name='outbox'").fetchone()
    table.execute("DROP TABLE outbox")
    table.execute(made.replace(" NOT NULL", ""))
    ids = put(table, range(RECORDS))
    spoil(table, ids[2], field, "NULL")
    sent, told = drained(table)
    assert left_of(sent, told) == []
    assert len(sent) == RECORDS - (field not in OF_LABELS)


def test_what_lies_where_nobody_comes_by_is_told(table):
    """[durability-1.10]"""
    ids = put(table, range(RECORDS))
    table.execute("UPDATE outbox SET id=? WHERE id=?", (ids[5] ^ (1 << 60), ids[5]))
    table.execute("UPDATE outbox SET id=? WHERE id=?", (-ids[0], ids[0]))
    stock = statements.take_stock(table, 1)
    assert (stock.records, stock.dead_letters) == (RECORDS - 2, 2)
    assert left_of(*drained(table)) == []


# ---- what is done with records but to send them --------------------------------------------------


def test_of_what_is_given_up_only_labels_that_hold_are_told(table):
    """[durability-1.10]"""
    ids = put(table, range(RECORDS))
    spoil(table, ids[1], "rows")
    spoil(table, ids[2], "payload")
    gone = statements.spare(table, ALL, ALL, ())
    statements.give_up(table, gone, "full")
    told = [(gap.stream, gap.first_seq, gap.rows) for gap in gaps.untold(table)]
    assert sorted(told) == [("", 0, 1), ("s", seq_of(0), ROWS), ("s", seq_of(2), 4 * ROWS)]


def test_a_stamp_that_is_spoilt_ages_nothing_but_goes_with_what_is_behind_it(table):
    """[durability-1.10]"""
    ids = [put(table, [n], at=10.0 * n)[0] for n in range(4)]
    spoil(table, ids[1], "at", "1e300")
    spoil(table, ids[3], "at", "1e300")
    for limit, want in ((5.0, ids[:1]), (15.0, ids[:1]), (25.0, ids[:3]), (99.0, ids[:3])):
        assert [row.id for row in statements.aged(table, limit, ALL, ())] == want
    assert statements.take_stock(table, 1).latest == 20.0


def test_damage_is_not_packed_and_what_is_packed_has_a_seal(table):
    """[durability-1.10] [delivery-2.7]"""
    ids = put(table, range(RECORDS))
    spoil(table, ids[2], "payload")
    spoil(table, ids[3], "at")
    packing = Packing(lambda bodies: [(len(bodies), b"".join(bodies))])
    packing.pack(table, [span_of(priority)[0] + ALL for priority in range(4)], ())
    found, damaged = statements.select(table, *span_of(1), 100)
    assert damaged == [ids[2]]
    whole = [(one.first_seq, one.rows, one.payload) for _, one in found]
    assert whole == [
        (seq_of(0), 2 * ROWS, body_of(0) + body_of(1)),
        (0, 0, body_of(3)),
        (seq_of(4), 2 * ROWS, body_of(4) + body_of(5)),
    ]


# ---- what an earlier agent left ------------------------------------------------------------------


def unsealed(table, numbers):
    ids = put(table, numbers)
    table.execute("UPDATE outbox SET seal=NULL")
    table.execute("INSERT INTO meta VALUES ('unsealed', ?)", (ids[-1] - span_of(1)[0],))
    return ids


def test_what_an_earlier_agent_left_is_taken_as_it_is_and_only_that(table):
    """[durability-1.7] [durability-1.10]"""
    unsealed(table, [0, 1, 2])
    ids = put(table, [3, 4, 5])
    spoil(table, ids[1], "seal", "NULL")
    sent, told = drained(table)
    assert [one.first_seq for one in sent] == [seq_of(n) for n in (0, 1, 2, 3, 5)]
    assert left_of(sent, told) == [4]
    statements.take_stock(table, 1)
    assert table.execute("SELECT * FROM meta WHERE name='unsealed'").fetchall() == []


def test_numbers_that_an_earlier_agent_had_are_not_given_again_while_any_of_it_waits(table):
    ids = unsealed(table, [0, 1, 2])
    statements.delete(table, ids[1:])
    assert statements.take_stock(table, 1).newest == 3
    table.execute("UPDATE meta SET value=? WHERE name='unsealed'", (2**62,))
    assert statements.take_stock(table, 1).newest == statements.UNSEALED_MAX
