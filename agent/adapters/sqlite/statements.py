"""What is done to the outbox's tables, as functions of the connection, within a transaction."""

import math
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from agent.adapters.sqlite import beside, gaps, seals
from agent.adapters.sqlite.gaps import Row
from agent.adapters.sqlite.schema import PRIORITIES, PRIORITY_BITS
from agent.adapters.sqlite.seals import SEAL, Labels
from agent.ports import Entry, Gap, Record

OVERHEAD_BYTES = 64  # of a row, beside topic and payload
DEAD_LETTERS_MAX = 64
DEAD_LETTERS_BYTES_MAX = 2**20
SPOILT = "it is not as it was written: the disk has damaged it"
UNSEALED_MAX = 2**40  # more is no number that an earlier agent came to

# Of a row that a disk has spoilt either may be missing.
_SIZE = f"coalesce(length(topic),0)+coalesce(length(payload),0)+{OVERHEAD_BYTES}"
_ROW = f"id, {_SIZE}, rows, stream, model, first_seq, at, {SEAL}"


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


def ids_of(records: Sequence[Record], newest: int) -> list[int]:
    """Of records that are new, behind number `newest`."""
    return [
        span_of(min(max(record.priority, 0), PRIORITIES - 1))[0] + n
        for n, record in enumerate(records, newest + 1)
    ]


def weight(record: Record) -> int:
    """Bytes a record counts for."""
    return len(record.topic) + len(record.payload) + OVERHEAD_BYTES


def take_stock(connection: sqlite3.Connection, epoch_least: int) -> Stock:
    """Begin; the tables are there."""
    connection.execute(
        "INSERT OR IGNORE INTO meta VALUES ('epoch', ?), ('given_up', 0), ('dead_letters', 0)",
        (epoch_least,),
    )
    strays = connection.execute(  # nobody would ever come by there
        "SELECT id FROM outbox WHERE id NOT BETWEEN 0 AND ?", (span_of(PRIORITIES - 1)[1],)
    ).fetchall()
    condemn(connection, [i for (i,) in strays])
    connection.execute(
        "DELETE FROM meta WHERE name='unsealed'"
        " AND NOT EXISTS (SELECT 1 FROM outbox WHERE seal IS NULL)"
    )
    meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    records, size = connection.execute(f"SELECT count(*), total({_SIZE}) FROM outbox").fetchone()
    newest, latest, behind = min(meta.get("unsealed", 0), UNSEALED_MAX), 0.0, set()
    for priority in range(PRIORITIES):
        first, last = span_of(priority)
        found = connection.execute(
            f"SELECT {_ROW} FROM outbox WHERE id BETWEEN ? AND ? ORDER BY id DESC", (first, last)
        )
        for row in map(_row, found):
            behind.add(priority)
            newest = max(newest, row.id - first)
            if not math.isnan(row.at):
                latest = max(latest, row.at)
                break
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
    rows = []
    for i, r in zip(ids, entry.records, strict=True):
        labels = Labels(r.rows, r.stream, r.model, r.first_seq, at)
        rows.append((i, r.topic, r.payload, *labels, seals.seal(r.topic, r.payload, labels)))
    connection.executemany(f"INSERT INTO outbox VALUES (?{', ?' * 8})", rows)
    beside.write(connection, entry)


def insert_none(connection: sqlite3.Connection, entry: Entry) -> Lost:
    """`entry` without its records, for which there is no room: they leave gaps at once."""
    gone = [Row(0, 0, r.rows, r.stream, r.model, r.first_seq, 0.0) for r in entry.records]
    beside.write_little(connection, entry)
    return Lost((), *_tell(connection, gone, "full"))


def select(
    connection: sqlite3.Connection, first: int, last: int, records_max: int
) -> tuple[list[tuple[int, Record]], list[int]]:
    """The oldest with ids from `first` to `last`: those that are as they were written, and the ids
    of the others.  A record of which the message alone is has no labels.
    """
    found: list[tuple[int, Record]] = []
    damaged: list[int] = []
    for i, topic, payload, *rest, seal in connection.execute(
        f"SELECT id, topic, payload, rows, stream, model, first_seq, at, {SEAL} FROM outbox"
        " WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (first, last, records_max),
    ).fetchall():
        if not seals.message_holds(topic, payload, seal):
            damaged.append(i)
            continue
        rows, stream, model, first_seq, _ = _trusted(Labels(*rest), seal)
        record = Record(topic, payload, rows, i >> PRIORITY_BITS, stream, model, first_seq)
        found.append((i, record))
    return found, damaged


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
        unknown: list[Row] = []  # without a stamp: as old as what is behind it, at least
        for row in _oldest(connection, priority, settled, but):
            if row.at >= limit:
                break
            unknown.append(row)
            if not math.isnan(row.at):
                gone += unknown
                unknown.clear()
    return gone


def _oldest(
    connection: sqlite3.Connection, priority: int, settled: int, but: Collection[int]
) -> Iterator[Row]:
    """What may be given up, in order: not `but` what is being sent or was, nor what only this
    commit has begun, which is numbered above `settled`.
    """
    first = span_of(priority)[0]
    found = connection.execute(
        f"SELECT {_ROW} FROM outbox WHERE id BETWEEN ? AND ? ORDER BY id",
        (first, first + settled),
    )
    return (row for row in map(_row, found) if row.id not in but)


def _row(found: Sequence[Any]) -> Row:
    """`_ROW`, with labels that can be told."""
    i, size, *rest, seal = found
    return Row(i, size, *_trusted(Labels(*rest), seal))


def _trusted(labels: Labels, seal: object) -> Labels:
    """`labels` if they are as they were written; else those of a record of which nothing is known,
    which is counted by the piece, as events are.
    """
    return labels if seals.labels_hold(labels, seal) else Labels(0, "", "", 0, math.nan)


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


def bury(connection: sqlite3.Connection, record_id: int, why: str, reason: str = "refused") -> Lost:
    """Move a record among the dead letters, of which the latest are kept; `reason` of its gap."""
    found = connection.execute(f"SELECT {_ROW} FROM outbox WHERE id=?", (record_id,)).fetchall()
    connection.execute(
        "INSERT INTO dead_letter (topic, payload, why)"
        " SELECT coalesce(topic, ''), payload, ? FROM outbox WHERE id=? AND length(payload)<=?",
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
    return give_up(connection, [_row(row) for row in found], reason)


def condemn(connection: sqlite3.Connection, ids: Sequence[int]) -> Lost:
    """Bury what a disk has damaged."""
    each = [bury(connection, i, SPOILT, "damaged") for i in ids]
    return Lost(
        [row for lost in each for row in lost.gone],
        [gap for lost in each for gap in lost.gaps],
        sum(lost.rows for lost in each),
    )


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
