"""What SQLite says, by who is to blame: weather, a file that is damaged, or we.

Weather is tried again.  Damage is not mended in life: it is noted beside the file (`doubts`), the
process ends, and its next start looks at the whole file.
"""

import sqlite3

_WEATHER = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNREAD = {
    sqlite3.SQLITE_IOERR_CORRUPTFS,  # what it makes of EIO
    sqlite3.SQLITE_IOERR_DATA,
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
}


def is_full(error: sqlite3.Error) -> bool:
    """There is no room on the disk."""
    return _code(error) & 0xFF == sqlite3.SQLITE_FULL


def is_weather(error: sqlite3.Error) -> bool:
    """The same may be done the next time."""
    return _code(error) & 0xFF in _WEATHER


def is_damage(error: sqlite3.Error) -> bool:
    """What the file holds is no database, or not all of it is."""
    return _code(error) & 0xFF in _DAMAGE


def is_unread(error: sqlite3.Error) -> bool:
    """The disk did not give what the file holds: weather, unless it goes on for long."""
    return _code(error) in _UNREAD


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code


class Patience:
    """With a disk that does not give what it holds.  Errors that are `pause_s` apart are each the
    first of their kind; those that go on for `unread_s_max` say that a place on it is gone.
    """

    def __init__(self, unread_s_max: float, pause_s: float) -> None:
        self._unread_s_max = unread_s_max
        self._pause_s = pause_s
        self._first = self._last = float("-inf")

    def is_over(self, error: sqlite3.Error, now: float) -> bool:
        """Whether `error`, which was met at `now`, is to be taken for damage."""
        if is_damage(error):
            return True
        if not is_unread(error):
            return False
        if now - self._last > self._pause_s:
            self._first = now
        self._last = now
        return now - self._first >= self._unread_s_max
