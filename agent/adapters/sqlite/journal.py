"""The journal: rollouts and documents, durable before `save` returns.

Each has a seal, because SQLite looks after its own pages' form and not after what is in a row: bits
that a disk has flipped there would be read as they are.
"""

import hashlib
import sqlite3
from collections.abc import Sequence

import msgspec
import structlog

from agent.adapters.sqlite.database import Database
from agent.core.rollout import Rollout

SEAL_BYTES = 16
TRUST = "trust"  # has a seal of its own, and is never to be forgotten: damaged is not unknown

_decode = msgspec.json.Decoder(Rollout)
logger = structlog.get_logger(__name__)


class SqliteJournal:
    """The `Journal` port.  Calls wait for the disk: keep them off event loops and off the lane.

    What does not match its seal when it is made is forgotten.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        if gone := database.call(_sweep):
            logger.error("journal damaged, forgotten", names=gone)

    def load(self, model: str) -> Rollout:
        """The last state saved whole; a fresh Rollout for a model never seen."""
        row = self._database.call(
            lambda c: c.execute("SELECT body FROM rollout WHERE model=?", (model,)).fetchone()
        )
        return _decode.decode(row[0]) if row else Rollout()

    def save(self, model: str, rollout: Rollout) -> None:
        """Durable on return.  Raises UnavailableError if the disk said no."""
        body = msgspec.json.encode(rollout)
        self._database.call(
            lambda c: (
                c.execute(
                    "REPLACE INTO rollout VALUES (?, ?, ?)", (model, body, _seal(model, body))
                ).rowcount
            )
        )

    def models(self) -> Sequence[str]:
        """Every model a rollout was saved for."""
        rows = self._database.call(lambda c: c.execute("SELECT model FROM rollout").fetchall())
        return [name for (name,) in rows]

    def load_document(self, name: str) -> bytes | None:
        """The document last saved under `name`."""
        row = self._database.call(
            lambda c: c.execute("SELECT body FROM document WHERE name=?", (name,)).fetchone()
        )
        return row[0] if row else None

    def document_names(self) -> Sequence[str]:
        """The names of all documents saved."""
        rows = self._database.call(lambda c: c.execute("SELECT name FROM document").fetchall())
        return [name for (name,) in rows]

    def drop_documents(self, names: Sequence[str]) -> None:
        """Forget these."""
        self._database.call(
            lambda c: (
                c.executemany(
                    "DELETE FROM document WHERE name=?", [(name,) for name in names]
                ).rowcount
            )
        )

    def save_document(self, name: str, body: bytes) -> None:
        """Durable on return."""
        self._database.call(
            lambda c: (
                c.execute(
                    "REPLACE INTO document VALUES (?, ?, ?)", (name, body, _seal(name, body))
                ).rowcount
            )
        )


def _seal(name: str, body: bytes) -> bytes:
    return hashlib.blake2b(name.encode() + b"\n" + body, digest_size=SEAL_BYTES).digest()


def _sweep(connection: sqlite3.Connection) -> list[str]:
    """Drop what is not as it was written; the names.  What an earlier agent wrote has no seal."""
    gone = []
    for table, key in (("rollout", "model"), ("document", "name")):
        rows = connection.execute(f"SELECT {key}, body, seal FROM {table}").fetchall()
        for name, body, seal in rows:
            if name != TRUST and seal is not None and not _matches(name, body, seal):
                connection.execute(f"DELETE FROM {table} WHERE {key}=?", (name,))
                gone.append(str(name))
    return gone


def _matches(name: object, body: object, seal: object) -> bool:
    return isinstance(name, str) and isinstance(body, bytes) and _seal(name, body) == seal
