"""The agent as it is, in a process that dies at its n-th durable operation of a kind.

    DYING_TRACE=FILE [DYING_AT='KIND #N before|after; …'] python -m tests.world.dying run --config …

An operation is what a power cut or a kill may come before or after: an fsync, a rename, a removal,
a COMMIT.  Its kind names who did it and when: `fsync write_atomic in fetching of 2` (that phase of
release 2 was journalled last), `commit rollout in shadow of 2` (it is that which is journalled).
Each goes as one line to FILE before it is done, and is counted over all processes that write to the
same FILE.  A death therefore moves the numbers of no other phase.
Nothing in the product knows of this.
"""

import json
import os
import re
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
TRACE, AT = "DYING_TRACE", "DYING_AT"
FILE_CALLS = ("fsync", "replace", "rename", "unlink", "rmdir")
SCORES = "commit scores"
STARTING = "in starting"  # nothing was journalled by this process yet
AGENT = f"{os.sep}agent{os.sep}"
_WRITES = re.compile(r"\s*(?:INSERT INTO|REPLACE INTO|DELETE FROM|UPDATE)\s+(\w+)", re.IGNORECASE)


class Point(NamedTuple):
    """One instant: `side` of operation `number` (from 1) of `kind`."""

    kind: str
    number: int
    side: str

    def __str__(self) -> str:
        return f"{self.kind} #{self.number} {self.side}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        """The inverse of str()."""
        kind, rest = text.strip().split(" #")
        number, side = rest.split()
        return cls(kind, int(number), side)


def traced(path: Path) -> Counter[str]:
    """How many operations of each kind were begun."""
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


class Operations:
    """Counts them, and dies where it is told."""

    def __init__(self, trace: Path, points: frozenset[Point]) -> None:
        self._counts = traced(trace)
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._points = points
        self._lock = threading.Lock()
        self._when = STARTING
        self._release = 0

    def journalled(self, rollout: dict[str, Any]) -> None:
        """This is being journalled; whatever is done from here on is done in that phase."""
        of = rollout["candidate"] or (None if self._release else rollout["active"])
        self._release = of["release"] if of else self._release
        self._when = f"in {rollout['phase']} of {self._release}"

    def around(self, kind: str, operation: Callable[[], T]) -> T:
        """Do it, and live through it or not."""
        with self._lock:
            kind = f"{kind} {self._when}"
            self._counts[kind] += 1
            number = self._counts[kind]
            os.write(self._trace, f"{kind}\n".encode())
        self._perhaps_die(Point(kind, number, "before"))
        done = operation()
        self._perhaps_die(Point(kind, number, "after"))
        return done

    def _perhaps_die(self, point: Point) -> None:
        if point in self._points:
            os.kill(os.getpid(), signal.SIGKILL)


def install(operations: Operations) -> None:
    """Put `operations` around every durable operation of this process."""
    for name in FILE_CALLS:
        _wrap(name, operations)

    class Connection(sqlite3.Connection):
        tables: frozenset[str] = frozenset()  # written to since BEGIN

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql == "COMMIT" and self.tables:
                return operations.around(self._kind(), lambda: super(Connection, self).execute(sql))
            if sql.startswith("BEGIN"):
                self.tables = frozenset()
            self._note(sql)
            if sql.startswith("REPLACE INTO rollout"):
                operations.journalled(json.loads(args[0][1]))
            return super().execute(sql, *args)

        def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
            if rows:
                self._note(sql)
            return super().executemany(sql, rows)

        def _note(self, sql: str) -> None:
            if found := _WRITES.match(sql):
                self.tables |= {found[1]}

        def _kind(self) -> str:
            if "rollout" in self.tables:
                return "commit rollout"
            return "commit document" if "document" in self.tables else SCORES

    real = sqlite3.connect
    sqlite3.connect = lambda *args, **more: real(*args, factory=Connection, **more)


def _wrap(name: str, operations: Operations) -> None:
    real = getattr(os, name)

    def call(*args: Any, **more: Any) -> Any:
        return operations.around(f"{name} {_whose()}", lambda: real(*args, **more))

    setattr(os, name, call)


def _whose() -> str:
    """The function of the agent that asked for it."""
    frame = sys._getframe(2)
    while frame is not None:
        if AGENT in frame.f_code.co_filename:
            return frame.f_code.co_name
        frame = frame.f_back
    return "somebody"


def main() -> None:
    """Run the agent's command line, watched."""
    points = frozenset(Point.parse(one) for one in os.environ.get(AT, "").split(";") if one.strip())
    install(Operations(Path(os.environ[TRACE]), points))
    from agent.cli import main as agent

    agent()


if __name__ == "__main__":
    main()
