"""Opening the file: one that is damaged is set aside; what scores must not wait for a repair.

Damaged is also what the last life has found so twice, and what a disk does not give a second time.
"""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from agent.adapters.sqlite import blame, doubts, schema
from agent.core.errors import RefusedError, UnavailableError

logger = structlog.get_logger(__name__)

LOCK_S_MAX = 5.0  # for an agent that is just stopping
PRAGMAS = (
    "locking_mode=EXCLUSIVE",
    "journal_mode=WAL",
    "synchronous=FULL",
    "wal_autocheckpoint=128",  # 512 KiB, half of the ballast
    "journal_size_limit=524288",
    "mmap_size=0",
)


class _DamagedError(sqlite3.DatabaseError):
    """What is in the file is no database of ours."""


class Opened(NamedTuple):
    """`found` is a sentence on how the file was, for people; empty if it was as it was left."""

    connection: sqlite3.Connection
    found: str


def opened(path: Path, check: Callable[[sqlite3.Connection], None]) -> Opened:
    """The file, or where it is damaged a fresh one; `check` raises ValueError where it is, too.

    Raises RefusedError where another agent has it, UnavailableError on any other no.
    """
    doubted = doubts.noted(path)
    try:
        connection = _open(path, check)
        if not doubted:
            return Opened(connection, "")
        if len(doubted) < doubts.DOUBTS_MAX:
            return Opened(connection, f"{path}: {doubted[-1]}; looked at anew, it is whole")
        connection.close()
        raise _DamagedError(doubted[-1])
    except _DamagedError as error:
        aside = path.with_name(f"{path.name}.bad")
        logger.error("database damaged, set aside", path=str(aside), why=str(error))  # noqa: TRY400
        _set_aside(path, aside)
        lost = "what waited in it to be sent is lost, its numbers begin anew in another epoch"
        return Opened(_open(path, check), f"{path} was damaged ({error}), see {aside}: {lost}")


def _set_aside(path: Path, aside: Path) -> None:
    doubts.forget(path)  # first: they are not about the fresh one
    try:
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.replace(aside.with_name(aside.name + suffix))
    except OSError as error:
        why = f"{path} is damaged and cannot be set aside as {aside}: {error.strerror}"
        raise UnavailableError(why) from error


def _open(path: Path, check: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            path, timeout=LOCK_S_MAX, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise _blamed(error, path) from error
    connection.text_factory = _text
    try:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").fetchall()
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise _DamagedError(found)
        if not schema.settle(connection):
            msg = "a later version of the agent wrote it"
            raise _DamagedError(msg)
        if not schema.is_ours(connection):
            msg = "its tables are not those it was made with"
            raise _DamagedError(msg)
        check(connection)
        connection.execute("DELETE FROM meta WHERE name=''")  # whether it can be written at all
    except ValueError as error:
        connection.close()
        raise _DamagedError(str(error)) from error
    except sqlite3.Error as error:
        connection.close()
        raise _blamed(error, path) from error
    return connection


def _blamed(error: sqlite3.Error, path: Path) -> Exception:
    """What to raise for it.  A disk that does not give what it holds is believed once."""
    if _is_damage(error, path):
        return _DamagedError(str(error))
    if "locked" in str(error):
        return RefusedError(
            f"another agent runs on {path.parent}; stop it, or set another store.dir"
        )
    if blame.is_unread(error):
        if doubts.noted(path):
            return _DamagedError(str(error))
        doubts.note(path, f"it could not be read at a start: {error}")
    shut = not all(os.access(one, os.W_OK) for one in (path.parent, path) if one.exists())
    if shut or _code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return UnavailableError(
            f"{path} cannot be opened to be written to ({error}); set store.dir, or its rights"
        )
    return UnavailableError(f"{path}: {error}")


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _is_damage(error: sqlite3.Error, path: Path) -> bool:
    """Whether it is what the file holds that is wrong; else it is weather."""
    if not isinstance(error, sqlite3.OperationalError):
        return True
    code = _code(error)
    if code == sqlite3.SQLITE_READONLY:  # a byte of its own says so, too
        return os.access(path, os.W_OK)
    return code == sqlite3.SQLITE_ERROR  # a format or a table that is not what its version says


def _text(raw: bytes) -> str:
    """What a disk has spoilt must not end the reading of what is behind it."""
    return raw.decode(errors="replace")
