"""What was given up and is not yet told: spans of row numbers, with exact counts."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from agent.ports import Gap

GAPS_MAX = 1000  # told apart; past it the latest of a model is widened


class Row(NamedTuple):
    """A record as eviction looks at it."""

    id: int
    bytes: int
    rows: int
    stream: str
    model: str
    first_seq: int
    at: float


def untold(connection: sqlite3.Connection) -> tuple[Gap, ...]:
    """All of them, oldest first."""
    return tuple(Gap(*row) for row in connection.execute("SELECT * FROM gap ORDER BY id"))


def leave(connection: sqlite3.Connection, gone: Sequence[Row], reason: str) -> list[Gap]:
    """Gaps for `gone`, which is in order; returns those that are new or have grown."""
    touched: dict[int, Gap] = {}
    (there,) = connection.execute("SELECT count(*) FROM gap").fetchone()
    for first, rows, stream, model in _stretches(gone):
        last = first + rows - 1 if stream else 0
        found = connection.execute(
            "SELECT * FROM gap WHERE stream=? AND model=? AND reason=? ORDER BY id DESC LIMIT 1",
            (stream, model, reason),
        ).fetchone()
        old = Gap(*found) if found else None
        if old is not None and (not stream or old.last_seq + 1 == first or there >= GAPS_MAX):
            new = Gap(
                old.id,
                stream,
                model,
                reason,
                old.first_seq,
                max(last, old.last_seq),
                old.rows + rows,
            )
            connection.execute(
                "UPDATE gap SET last_seq=?, rows=? WHERE id=?", (new.last_seq, new.rows, new.id)
            )
        else:
            new = _new(connection, Gap(0, stream, model, reason, first, last, rows))
            there += 1
        touched[new.id] = new
    return list(touched.values())


def told(connection: sqlite3.Connection, gaps: Sequence[Gap]) -> list[tuple[Gap, Gap | None]]:
    """Forget `gaps`; what they have grown by meanwhile stays."""
    left: list[tuple[Gap, Gap | None]] = []
    for gap in gaps:
        found = connection.execute("SELECT * FROM gap WHERE id=?", (gap.id,)).fetchone()
        if found is None:
            left.append((gap, None))
            continue
        now = Gap(*found)
        connection.execute("DELETE FROM gap WHERE id=?", (gap.id,))
        rest = None
        if now.rows > gap.rows:
            first = gap.last_seq + 1 if gap.stream else 0
            rest = replace(now, first_seq=first, rows=now.rows - gap.rows)
            rest = _new(connection, rest)
        left.append((gap, rest))
    return left


def _new(connection: sqlite3.Connection, gap: Gap) -> Gap:
    made = connection.execute(
        "INSERT INTO gap (stream, model, reason, first_seq, last_seq, rows)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (gap.stream, gap.model, gap.reason, gap.first_seq, gap.last_seq, gap.rows),
    )
    return replace(gap, id=made.lastrowid or 0)


def _stretches(gone: Sequence[Row]) -> list[tuple[int, int, str, str]]:
    """(first seq, rows, stream, model) of what belongs together; events by the piece."""
    open_: dict[tuple[str, str], tuple[int, int]] = {}
    done: list[tuple[int, int, str, str]] = []
    for row in gone:
        key = (row.stream, row.model) if row.rows else ("", row.model)
        rows, first = row.rows or 1, row.first_seq if row.rows else 0
        begun = open_.get(key)
        if begun is not None and (not key[0] or begun[0] + begun[1] == first):
            open_[key] = (begun[0], begun[1] + rows)
            continue
        if begun is not None:
            done.append((*begun, *key))
        open_[key] = (first, rows)
    return done + [(*span, *key) for key, span in open_.items()]
