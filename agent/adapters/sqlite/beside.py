"""What is committed beside the records of an entry, and read at a start: accounts, how far each
source was read, and what models carry from reading to reading.
"""

import sqlite3
from collections.abc import Mapping, Sequence

from agent.ports import Entry


def write(connection: sqlite3.Connection, entry: Entry) -> None:
    """All of it."""
    _account(connection, entry)
    for whose, row in entry.carried.items():
        if row.number == 0:
            connection.execute("DELETE FROM carried WHERE stream=? AND model=?", whose)
        if row.body:
            connection.execute(
                "INSERT INTO carried VALUES (?, ?, ?, ?)", (*whose, row.number, row.body)
            )


def write_little(connection: sqlite3.Connection, entry: Entry) -> None:
    """For which there is always room: not open windows and states, should the process end before
    they are stored anew; a story that lacks a row is none.
    """
    _account(connection, entry)
    for whose in entry.carried:
        connection.execute("DELETE FROM carried WHERE stream=? AND model=?", whose)


def _account(connection: sqlite3.Connection, entry: Entry) -> None:
    accounts = [(stream, model, body) for (stream, model), body in entry.accounts.items()]
    connection.executemany("REPLACE INTO account VALUES (?, ?, ?)", accounts)
    connection.executemany("REPLACE INTO mark VALUES (?, ?)", list(entry.marks.items()))


def accounts(connection: sqlite3.Connection) -> Mapping[tuple[str, str], bytes]:
    """By stream and model."""
    rows = connection.execute("SELECT stream, model, body FROM account")
    return {(stream, model): body for stream, model, body in rows}


def marks(connection: sqlite3.Connection) -> Mapping[str, bytes]:
    """By stream."""
    return dict(connection.execute("SELECT stream, body FROM mark").fetchall())


def carried(connection: sqlite3.Connection, stream: str, model: str) -> Sequence[tuple[int, bytes]]:
    """In order."""
    asked = "SELECT number, body FROM carried WHERE stream=? AND model=? ORDER BY number"
    return connection.execute(asked, (stream, model)).fetchall()
