"""What is done to the outbox's tables, as functions of the connection, within a transaction."""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from agent.adapters.sqlite import gaps
from agent.adapters.sqlite.gaps import Row
from agent.adapters.sqlite.schema import PRIORITIES, PRIORITY_BITS
from agent.ports import Entry, Gap, Record

OVERHEAD_BYTES = 64  # of a row, beside topic and payload
DEAD_LETTERS_MAX = 64
DEAD_LETTERS_BYTES_MAX = 2**20

_SIZE = f"length(topic)+length(payload)+{OVERHEAD_BYTES}"


class Stock(NamedTuple):
    """What is there at a start."""

    records: int
    bytes: int
    given_up: int
    dead_letters: int
    epoch: int
    newest: int  # the highest number given away, priority bits apart
    latest: float  # on the line of seconds
    behind: frozenset[int]  # priorities of which the table has records
    gaps: tuple[Gap, ...]


class Lost(NamedTuple):
    """What a deletion came to: records that are gone, and the gaps it left, as they are now."""

    gone: Sequence[Row]
    gaps: Sequence[Gap]
    rows: int


def span_of(priority: int) -> tuple[int, int]:
    """First and last possible id."""
    return priority << PRIORITY_BITS, ((priority + 1) << PRIORITY_BITS) - 1


def weight(record: Record) -> int:
    """Bytes a record counts for."""
    return len(record.topic) + len(record.payload) + OVERHEAD_BYTES


def take_stock(connection: sqlite3.Connection, epoch_least: int) -> Stock:
    """Begin; the tables are there."""
    connection.execute(
        "INSERT OR IGNORE INTO meta VALUES ('epoch', ?), ('given_up', 0), ('dead_letters', 0)",
        (epoch_least,),
    )
    records, size, latest = connection.execute(
        f"SELECT count(*), total({_SIZE}), coalesce(max(at), 0) FROM outbox"
    ).fetchone()
    newest, behind = 0, set()
    for priority in range(PRIORITIES):
        (last,) = connection.execute(
            "SELECT max(id) FROM outbox WHERE id BETWEEN ? AND ?", span_of(priority)
        ).fetchone()
        if last is not None:
            behind.add(priority)
            newest = max(newest, last - span_of(priority)[0])
    meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    return Stock(
        records,
        int(size),
        meta["given_up"],
        meta["dead_letters"],
        meta["epoch"],
        newest,
        latest,
        frozenset(behind),
        gaps.untold(connection),
    )


def insert(connection: sqlite3.Connection, entry: Entry, ids: Sequence[int], at: float) -> None:
    """All of `entry`."""
    rows = [
        (i, r.topic, r.payload, r.rows, r.stream, r.model, r.first_seq, at)
        for i, r in zip(ids, entry.records, strict=True)
    ]
    connection.executemany(f"INSERT INTO outbox VALUES (?{', ?' * 7})", rows)
    _account(connection, entry)
    _carry(connection, entry)


def insert_none(connection: sqlite3.Connection, entry: Entry) -> Lost:
    """`entry` without its records, for which there is no room: they leave gaps at once.

    Nor is there room for open windows, should the process end before they are stored anew: a story
    that lacks a row is none.
    """
    gone = [Row(0, 0, r.rows, r.stream, r.model, r.first_seq, 0.0) for r in entry.records]
    _account(connection, entry)
    for whose in entry.carried:
        connection.execute("DELETE FROM carried WHERE stream=? AND model=?", whose)
    return Lost((), *_tell(connection, gone, "full"))


def _account(connection: sqlite3.Connection, entry: Entry) -> None:
    """The accounts and marks of `entry`."""
    accounts = [(stream, model, body) for (stream, model), body in entry.accounts.items()]
    connection.executemany("REPLACE INTO account VALUES (?, ?, ?)", accounts)
    connection.executemany("REPLACE INTO mark VALUES (?, ?)", list(entry.marks.items()))


def _carry(connection: sqlite3.Connection, entry: Entry) -> None:
    """The windows and states of `entry`."""
    for whose, row in entry.carried.items():
        if row.number == 0:
            connection.execute("DELETE FROM carried WHERE stream=? AND model=?", whose)
        if row.body:
            connection.execute(
                "INSERT INTO carried VALUES (?, ?, ?, ?)", (*whose, row.number, row.body)
            )


def select(
    connection: sqlite3.Connection, first: int, last: int, records_max: int
) -> list[tuple[int, Record]]:
    """The oldest with ids from `first` to `last`."""
    rows = connection.execute(
        "SELECT id, topic, payload, rows, stream, model, first_seq FROM outbox"
        " WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (first, last, records_max),
    ).fetchall()
    return [
        (i, Record(topic, payload, rows, i >> PRIORITY_BITS, stream, model, first_seq))
        for i, topic, payload, rows, stream, model, first_seq in rows
    ]


def spare(
    connection: sqlite3.Connection, excess: int, settled: int, but: Collection[int]
) -> list[Row]:
    """The oldest of the lowest priority, `excess` bytes of them; see `_oldest`."""
    gone: list[Row] = []
    for priority in reversed(range(PRIORITIES)):
        for row in _oldest(connection, priority, settled, but):
            if excess <= 0:
                break
            excess -= row.bytes
            gone.append(row)
    return gone


def aged(
    connection: sqlite3.Connection, limit: float, settled: int, but: Collection[int]
) -> list[Row]:
    """Those with stamps below `limit`; see `_oldest`."""
    gone: list[Row] = []
    for priority in range(PRIORITIES):
        rows = _oldest(connection, priority, settled, but)
        gone += takewhile(lambda row: row.at < limit, rows)
    return gone


def _oldest(
    connection: sqlite3.Connection, priority: int, settled: int, but: Collection[int]
) -> Iterator[Row]:
    """What may be given up, in order: not `but` what is being sent or was, nor what only this
    commit has begun, which is numbered above `settled`.
    """
    first = span_of(priority)[0]
    found = connection.execute(
        f"SELECT id, {_SIZE}, rows, stream, model, first_seq, at FROM outbox"
        " WHERE id BETWEEN ? AND ? ORDER BY id",
        (first, first + settled),
    )
    return (row for row in map(Row._make, found) if row.id not in but)


def give_up(connection: sqlite3.Connection, gone: Sequence[Row], reason: str) -> Lost:
    """Delete `gone` and leave gaps."""
    connection.executemany("DELETE FROM outbox WHERE id=?", [(row.id,) for row in gone])
    return Lost(gone, *_tell(connection, gone, reason))


def _tell(
    connection: sqlite3.Connection, gone: Sequence[Row], reason: str
) -> tuple[Sequence[Gap], int]:
    given_up = sum(row.rows for row in gone)
    _count(connection, "given_up", given_up)
    return gaps.leave(connection, gone, reason), given_up


def delete(connection: sqlite3.Connection, ids: Sequence[int]) -> tuple[int, int]:
    """How many were there, and their bytes."""
    sizes: list[int] = []
    for first, last in _runs(ids):
        found = connection.execute(
            f"DELETE FROM outbox WHERE id BETWEEN ? AND ? RETURNING {_SIZE}", (first, last)
        )
        sizes += [size for (size,) in found]
    return len(sizes), sum(sizes)


def bury(connection: sqlite3.Connection, record_id: int, why: str) -> Lost:
    """Move a record among the dead letters, of which the latest are kept."""
    found = connection.execute(
        f"SELECT id, {_SIZE}, rows, stream, model, first_seq, at FROM outbox WHERE id=?",
        (record_id,),
    ).fetchall()
    connection.execute(
        "INSERT INTO dead_letter (topic, payload, why)"
        " SELECT topic, payload, ? FROM outbox WHERE id=? AND length(payload)<=?",
        (why, record_id, DEAD_LETTERS_BYTES_MAX),
    )
    kept = size = 0
    for i, length in connection.execute(
        "SELECT id, length(payload) FROM dead_letter ORDER BY id DESC"
    ).fetchall():
        kept, size = kept + 1, size + length
        if kept > DEAD_LETTERS_MAX or size > DEAD_LETTERS_BYTES_MAX:
            connection.execute("DELETE FROM dead_letter WHERE id<=?", (i,))
            break
    _count(connection, "dead_letters", len(found))
    return give_up(connection, [Row._make(row) for row in found], "refused")


def _count(connection: sqlite3.Connection, name: str, more: int) -> None:
    connection.execute("UPDATE meta SET value=value+? WHERE name=?", (more, name))


def _runs(ids: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each stretch without a hole."""
    runs: list[tuple[int, int]] = []
    for i in sorted(ids):
        if runs and i <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], i)
        else:
            runs.append((i, i))
    return runs
