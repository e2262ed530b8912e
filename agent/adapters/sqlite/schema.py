"""The tables, and how a file of an earlier agent becomes one of this.

An outbox id is the priority above 48 bits of a number that rises: the order of the table is the
order of sending, and costs no index.
"""

import functools
import sqlite3
from contextlib import closing

VERSION = 5
PRIORITY_BITS = 48
PRIORITIES = 4

_META = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE rollout (model TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE document (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE account (
    stream TEXT NOT NULL, model TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (stream, model)
) WITHOUT ROWID;
CREATE TABLE mark (stream TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
"""
_OUTBOX = """
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL, rows INTEGER NOT NULL,
    stream TEXT NOT NULL, model TEXT NOT NULL, first_seq INTEGER NOT NULL, at REAL NOT NULL
);
CREATE TABLE gap (
    id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, model TEXT NOT NULL,
    reason TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    rows INTEGER NOT NULL
);
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL, why TEXT NOT NULL
);
"""
_FROM_1 = f"""
ALTER TABLE outbox RENAME TO outbox_1;
{_OUTBOX}
INSERT INTO outbox SELECT (priority << {PRIORITY_BITS}) + id, topic, payload, rows, stream, model,
    first_seq, 0 FROM outbox_1 WHERE priority < {PRIORITIES};
DROP TABLE outbox_1;
"""
_CARRIED = """
CREATE TABLE carried (
    stream TEXT NOT NULL, model TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (stream, model, number)
) WITHOUT ROWID;
"""
_SEALS = """
ALTER TABLE rollout ADD COLUMN seal BLOB;
ALTER TABLE document ADD COLUMN seal BLOB;
"""
# What waits already stays as it is, up to the number that is noted (none in a fresh file): to seal
# it would write all of it again, for which a disk may have no room.
_RECORD_SEALS = f"""
ALTER TABLE outbox ADD COLUMN seal BLOB;
INSERT OR IGNORE INTO meta SELECT 'unsealed', max(id & {(1 << PRIORITY_BITS) - 1}) FROM outbox;
"""
_STEPS = {
    0: _META + _OUTBOX + _CARRIED + _SEALS + _RECORD_SEALS,
    1: _FROM_1 + _CARRIED + _SEALS + _RECORD_SEALS,
    2: _CARRIED + _SEALS + _RECORD_SEALS,
    3: _SEALS + _RECORD_SEALS,
    4: _RECORD_SEALS,
    VERSION: "",
}


def settle(connection: sqlite3.Connection) -> bool:
    """Bring the tables to `VERSION`; False if a later agent wrote the file.  sqlite3.Error."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    steps = _STEPS.get(version)
    if steps:
        connection.executescript(f"BEGIN; {steps} PRAGMA user_version={VERSION}; COMMIT;")
    return steps is not None


def is_ours(connection: sqlite3.Connection) -> bool:
    """Whether the tables are those of `VERSION`: their names and columns are bytes on a disk, too,
    and no check of SQLite's knows what they should be.  sqlite3.Error.
    """
    return _shape(connection) == _ours()


@functools.cache
def _ours() -> object:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        settle(connection)
        return _shape(connection)


def _shape(connection: sqlite3.Connection) -> object:
    tables = "SELECT name FROM sqlite_master WHERE type='table' ORDER BY name"
    columns = 'SELECT name, type, "notnull", pk FROM pragma_table_info(?)'
    names = [name for (name,) in connection.execute(tables)]
    return {name: connection.execute(columns, (name,)).fetchall() for name in names}
