"""How old the records in the outbox are, and which are too old (how it is known: `core.ages`)."""

import sqlite3
import time
from collections.abc import Callable

from agent.core.ages import Line, resumed

LOOKS = 20  # in the life of a record
LOOK_S_MAX = 60.0


class Ageing:
    """`ttl_s` 0: nothing is ever too old.  `wall` gives the wall clock, None if not believed."""

    def __init__(
        self,
        ttl_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._ttl_s = ttl_s
        self._monotonic = monotonic
        self._wall = wall
        self._line = Line(0.0, monotonic(), None)
        self._due = 0.0

    def begin(self, connection: sqlite3.Connection, latest: float) -> None:
        """Go on from where the last run ended; `latest` is the newest stamp it left."""
        stored = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        line = max(latest, stored.get("line", 0.0))
        self._line = resumed(line, stored.get("wall", 0.0), self._monotonic(), self._wall())

    def now(self) -> float:
        """The stamp of what is added now."""
        return self._line.now(self._monotonic())

    def is_due(self) -> bool:
        """Whether it is time to look for what is too old; asked once."""
        now = self._monotonic()
        if not self._ttl_s or now < self._due:
            return False
        self._due = now + min(LOOK_S_MAX, self._ttl_s / LOOKS)
        return True

    def limit(self) -> float:
        """Stamps below it are too old."""
        return self.now() - self._ttl_s

    def store(self, connection: sqlite3.Connection) -> None:
        """Remember where the line stands."""
        wall = self._line.look(self._monotonic(), self._wall())
        connection.execute("REPLACE INTO meta VALUES ('line', ?), ('wall', ?)", (self.now(), wall))
