"""What is done to the outbox's tables: what goes first, what is told of it, what stays."""

import sqlite3

import pytest

from agent.adapters.sqlite import gaps, schema, statements
from agent.adapters.sqlite.gaps import GAPS_MAX, Row
from agent.adapters.sqlite.packing import PACK_BYTES_MAX, SMALL_BYTES_MAX, Packing
from agent.adapters.sqlite.statements import DEAD_LETTERS_BYTES_MAX, DEAD_LETTERS_MAX, span_of
from agent.adapters.sqlite.tails import OBJECT_BYTES, Tails
from agent.ports import Carried, Entry, Gap, Record

ALL = 2**40


@pytest.fixture
def table():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.settle(connection)
    statements.take_stock(connection, 1)
    yield connection
    connection.close()


def record(seq, *, priority=1, rows=1, size=10, model="m", stream="s"):
    return Record("t", b"x" * size, rows, priority, stream, model, seq)


def put(table, *records, start=1, at=0.0, **entry):
    """Numbered from `start` on; returns their ids."""
    ids = [span_of(r.priority)[0] + start + n for n, r in enumerate(records)]
    statements.insert(table, Entry(list(records), **entry), ids, at)
    return ids


def rows_of(table):
    return [seq for (seq,) in table.execute("SELECT first_seq FROM outbox ORDER BY id")]


def gone(*spans, stream="s", model="m"):
    """Records of these (first number, rows), as eviction sees them."""
    return [Row(n, 1, rows, stream, model, first, 0.0) for n, (first, rows) in enumerate(spans)]


def told(found):
    return [(gap.first_seq, gap.last_seq, gap.rows) for gap in found]


# ---- gaps ----------------------------------------------------------------------------------------


def test_rows_that_follow_one_another_are_one_gap_and_others_are_not(table):
    """[delivery-2.4]"""
    assert told(gaps.leave(table, gone((0, 2), (2, 3), (9, 1)), "full")) == [(0, 4, 5), (9, 9, 1)]
    assert told(gaps.leave(table, gone((10, 2), (20, 1)), "full")) == [(9, 11, 3), (20, 20, 1)]
    assert told(gaps.untold(table)) == [(0, 4, 5), (9, 11, 3), (20, 20, 1)]


def test_gaps_of_another_model_or_reason_are_apart(table):
    gaps.leave(table, gone((0, 2)), "full")
    gaps.leave(table, gone((2, 1)), "expired")
    gaps.leave(table, gone((2, 1), model="other"), "full")
    assert told(gaps.untold(table)) == [(0, 1, 2), (2, 2, 1), (2, 2, 1)]


def test_of_very_many_gaps_the_latest_is_widened_and_counts_only_what_is_gone(table):
    gaps.leave(table, gone(*((10 * n, 1) for n in range(GAPS_MAX))), "full")
    latest = 10 * (GAPS_MAX - 1)
    assert told(gaps.leave(table, gone((latest + 100, 5)), "full")) == [
        (latest, latest + 104, 6),
    ]
    assert told(gaps.leave(table, gone((latest + 50, 1)), "full")) == [(latest, latest + 104, 7)]
    assert len(gaps.untold(table)) == GAPS_MAX


def test_very_many_gaps_left_at_once_are_bounded_too(table):
    gaps.leave(table, gone(*((10 * n, 1) for n in range(GAPS_MAX + 50))), "full")
    found = gaps.untold(table)
    assert len(found) == GAPS_MAX
    assert sum(gap.rows for gap in found) == GAPS_MAX + 50


def test_events_have_no_numbers_and_are_counted_by_the_piece(table):
    events = [Row(n, 1, 0, "", "m", 0, 0.0) for n in range(3)]
    assert told(gaps.leave(table, events, "full")) == [(0, 0, 3)]
    assert told(gaps.leave(table, events, "full")) == [(0, 0, 6)]


def test_what_a_gap_grew_by_while_it_was_told_is_a_gap_of_its_own(table):
    """[delivery-2.4]"""
    (heard,) = gaps.leave(table, gone((0, 5)), "full")
    gaps.leave(table, gone((5, 3)), "full")
    ((_, rest),) = gaps.told(table, [heard])
    assert told([rest]) == [(5, 7, 3)] == told(gaps.untold(table))
    assert gaps.told(table, [rest]) == [(rest, None)]
    assert gaps.untold(table) == ()
    assert gaps.told(table, [rest]) == [(rest, None)], "already forgotten"


# ---- what is given up ----------------------------------------------------------------------------


def test_the_oldest_of_the_lowest_priority_goes_first_and_no_more_than_must(table):
    """[delivery-2.2]"""
    put(table, *(record(n, priority=priority) for n, priority in enumerate([2, 2, 0, 1, 2])))
    each = statements.weight(record(0))
    assert [row.first_seq for row in statements.spare(table, each + 1, ALL, ())] == [0, 1]
    assert [row.first_seq for row in statements.spare(table, 2 * each, ALL, ())] == [0, 1]
    assert [row.first_seq for row in statements.spare(table, ALL, ALL, ())] == [0, 1, 4, 3, 2]
    assert statements.spare(table, 0, ALL, ()) == []


def test_what_is_being_sent_or_is_not_durable_yet_is_not_given_up(table):
    ids = put(table, *map(record, range(4)))
    spared = statements.spare(table, ALL, 3, {ids[1]})
    assert [row.first_seq for row in spared] == [0, 2]
    assert [row.first_seq for row in statements.aged(table, 1.0, 3, {ids[0]})] == [1, 2]


def test_what_is_exactly_of_age_is_not_too_old(table):
    """[delivery-2.6]"""
    for n in range(3):
        put(table, record(n), start=n + 1, at=10.0 * n)
    assert [row.first_seq for row in statements.aged(table, 10.0, ALL, ())] == [0]
    assert [row.first_seq for row in statements.aged(table, 10.1, ALL, ())] == [0, 1]


def test_only_what_was_accepted_is_deleted_however_it_is_listed(table):
    ids = put(table, *map(record, range(8)))
    count, size = statements.delete(table, [ids[5], ids[1], ids[3], ids[2], ids[5], ids[7]])
    assert (count, size) == (5, 5 * statements.weight(record(0)))
    assert rows_of(table) == [0, 4, 6]
    assert statements.delete(table, [ids[1]]) == (0, 0)


def test_of_what_the_broker_refused_the_latest_are_kept_and_all_are_counted(table):
    """[delivery-2.5]"""
    ids = put(table, *map(record, range(DEAD_LETTERS_MAX + 2)))
    for i in ids:
        statements.bury(table, i, "no")
    (kept,) = table.execute("SELECT count(*) FROM dead_letter").fetchone()
    assert kept == DEAD_LETTERS_MAX
    assert rows_of(table) == []
    stock = statements.take_stock(table, 1)
    assert (stock.dead_letters, stock.given_up) == (len(ids), len(ids))
    assert told(stock.gaps) == [(0, len(ids) - 1, len(ids))]


def test_dead_letters_take_no_more_than_their_room(table):
    third = DEAD_LETTERS_BYTES_MAX // 3
    sizes = [third, third, third, 2 * third, DEAD_LETTERS_BYTES_MAX + 1]
    ids = put(table, *(record(n, size=size) for n, size in enumerate(sizes)))
    kept = []
    for i in ids:
        statements.bury(table, i, "no")
        kept.append([s for (s,) in table.execute("SELECT length(payload) FROM dead_letter")])
    assert kept[2] == [third, third, third]
    assert kept[3] == [third, 2 * third]
    assert kept[4] == kept[3], "larger than all of the room: only counted"


def test_on_a_full_disk_rows_leave_gaps_and_the_account_is_kept(table):
    whose = ("s", "m")
    put(table, record(0), carried={whose: Carried(0, b"a")})
    entry = Entry([record(1, rows=3)], {whose: b"{}"}, {"s": b"mark"}, {whose: Carried(1, b"b")})
    lost = statements.insert_none(table, entry)
    assert (told(lost.gaps), lost.rows) == ([(1, 3, 3)], 3)
    assert rows_of(table) == [0]
    assert table.execute("SELECT body FROM account").fetchall() == [(b"{}",)]
    assert table.execute("SELECT body FROM mark").fetchall() == [(b"mark",)]
    assert table.execute("SELECT * FROM carried").fetchall() == [], "a story with a hole is none"


def test_a_start_finds_what_the_last_run_left(table):
    put(table, record(0, priority=0), record(1, priority=2), record(2, priority=1), at=7.0)
    statements.give_up(table, gone((9, 4)), "full")
    stock = statements.take_stock(table, 5)
    assert (stock.records, stock.bytes) == (3, 3 * statements.weight(record(0)))
    assert (stock.newest, stock.latest, stock.behind) == (3, 7.0, {0, 1, 2})
    assert (stock.given_up, stock.epoch) == (4, 1), "not those of a fresh store"


# ---- in memory -----------------------------------------------------------------------------------


def ids_of(found):
    return [i for i, _ in found]


def room(n):
    return n * (statements.weight(record(0)) + OBJECT_BYTES)


def filled(bytes_max, *numbers, behind=()):
    """`numbers` are (priority, number)."""
    tails = Tails(bytes_max, behind)
    for priority, number in numbers:
        tails.add(span_of(priority)[0] + number, record(number, priority=priority))
    return tails


def test_memory_lets_go_of_the_oldest_of_the_lowest_priority_and_says_so():
    tails = filled(room(3), (2, 1), (1, 2), (2, 3), (1, 4))
    assert tails.behind == [False, False, True, False]
    assert tails.oldest(2) == span_of(2)[0] + 3
    assert tails.let_go_bytes == statements.weight(record(0))
    one = span_of(1)[0]
    assert ids_of(tails.next(9)[0]) == [one + 2, one + 4]
    tails.drop([one + 2, one + 4])
    assert tails.next(9) == ([], 2), "what is older than memory is read first"


def test_what_is_sent_from_memory_is_in_order_and_behind_what_was_sent():
    tails = filled(room(9), (0, 5), (1, 1), (1, 2), (1, 3))
    one = span_of(1)[0]
    assert ids_of(tails.next(9)[0]) == [5, one + 1, one + 2, one + 3]
    assert ids_of(tails.next(2)[0]) == [5, one + 1]
    tails.drop([5, one + 2, one + 2, one + 7])
    assert ids_of(tails.next(9)[0]) == [one + 1, one + 3]
    for number in range(10, 16):  # the room of what was dropped is there again
        tails.add(one + number, record(number))
    assert tails.behind == [False] * 4


def test_what_was_sent_in_turn_is_not_looked_for_again_and_what_is_in_memory_goes_at_once():
    tails = filled(room(9), (1, 1), (1, 2), behind={0, 2})
    one = span_of(1)[0]
    assert tails.next(9) == ([], 0)
    tails.behind[0] = False
    found, missing = tails.next(9)
    assert (ids_of(found), missing) == ([one + 1, one + 2], None)
    tails.drop([one + 1, one + 2])
    assert tails.next(9) == ([], 2)


def test_what_only_the_table_has_ends_where_memory_begins_or_nothing_is_settled():
    tails = filled(room(9), (1, 5), (1, 6))
    ends = [end - span_of(priority)[0] for priority, end in enumerate(tails.ends(3))]
    assert ends == [3, 3, 3, 3]
    ends = [end - span_of(priority)[0] for priority, end in enumerate(tails.ends(8))]
    assert ends == [8, 4, 8, 8]


# ---- packing -------------------------------------------------------------------------------------


def joined(bodies):
    return [(len(bodies), b"".join(bodies))]


def packed(table, *, but=(), end=ALL):
    ends = [span_of(priority)[0] + min(end, ALL) for priority in range(4)]
    return Packing(joined).pack(table, ends, but)


def spans(table):
    found = table.execute("SELECT first_seq, rows, length(payload) FROM outbox ORDER BY id")
    return found.fetchall()


def test_rows_that_follow_one_another_become_one_record_of_the_last_ones_number(table):
    """[delivery-2.7]"""
    ids = put(table, record(0, rows=2), record(2), record(3, rows=4), record(9))
    before = statements.take_stock(table, 1).bytes
    saved = packed(table)
    assert spans(table) == [(0, 7, 30), (9, 1, 10)]
    assert [i for (i,) in table.execute("SELECT id FROM outbox ORDER BY id")] == ids[2:]
    stock = statements.take_stock(table, 1)
    assert (saved.records, saved.bytes) == (2, before - stock.bytes)


def test_neither_what_is_sent_nor_what_is_large_nor_an_event_is_packed(table):
    ids = put(table, *map(record, range(4)))
    packed(table, but={ids[0], ids[1]})
    assert spans(table) == [(0, 1, 10), (1, 1, 10), (2, 2, 20)]
    put(table, record(4, size=SMALL_BYTES_MAX + 1), record(5, rows=0), record(5), start=5)
    packed(table)
    assert [rows for _, rows, _ in spans(table)] == [4, 1, 0, 1]


def test_a_packed_record_is_no_larger_than_allowed_and_goes_no_further_than_asked(table):
    each = SMALL_BYTES_MAX
    put(table, *(record(n, size=each) for n in range(20)))
    packed(table, end=18)
    sizes = [size for _, _, size in spans(table)]
    assert sizes == [PACK_BYTES_MAX, 2 * each, each, each]


def test_packing_goes_on_behind_what_it_has_looked_at(table):
    put(table, *map(record, range(4)))
    packing = Packing(joined)
    ends = [span_of(priority)[0] + 4 for priority in range(4)]
    assert not packing.packed(packing.pack(table, ends, ()))
    put(table, *(record(n) for n in range(4, 6)), start=5)
    packing.pack(table, [end + 4 for end in ends], ())
    assert spans(table) == [(0, 4, 40), (4, 2, 20)]


def test_gaps_are_as_they_were_for_who_reads_them_back(table):
    (left,) = gaps.leave(table, gone((3, 2)), "expired")
    assert gaps.untold(table) == (Gap(left.id, "s", "m", "expired", 3, 4, 2),)
