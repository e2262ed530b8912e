"""The journal: rollouts and documents, durable before `save` returns."""

from collections.abc import Sequence

import msgspec

from agent.adapters.sqlite.database import Database
from agent.core.rollout import Rollout

_decode = msgspec.json.Decoder(Rollout)


class SqliteJournal:
    """The `Journal` port.  Calls wait for the disk: keep them off event loops and off the lane."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
            lambda c: c.execute("REPLACE INTO rollout VALUES (?, ?)", (model, body)).rowcount
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
            lambda c: c.execute("REPLACE INTO document VALUES (?, ?)", (name, body)).rowcount
        )
