"""Which gaps are still to be told: the memory beside their table.  Safe between threads."""

import threading
from collections.abc import Iterable, Sequence

from agent.ports import Gap

TELL_MAX = 16  # at once


class Telling:
    """Begins with what an earlier run left untold."""

    def __init__(self, untold: Iterable[Gap]) -> None:
        self._lock = threading.Lock()
        self._untold = {gap.id: gap for gap in untold}
        self._leaving: set[int] = set()  # told, but the table does not know it yet

    @property
    def has_some(self) -> bool:
        """Whether there is something to tell."""
        with self._lock:
            return self._untold.keys() - self._leaving != set()

    def next(self) -> Sequence[Gap]:
        """The oldest, a few."""
        with self._lock:
            waiting = [gap for i, gap in self._untold.items() if i not in self._leaving]
            return waiting[:TELL_MAX]

    def grow(self, gaps: Iterable[Gap]) -> None:
        """These are new, or have grown."""
        with self._lock:
            self._untold.update((gap.id, gap) for gap in gaps)

    def leave(self, gaps: Iterable[Gap]) -> None:
        """These have been told."""
        with self._lock:
            self._leaving.update(gap.id for gap in gaps)

    def left(self, gaps: Iterable[tuple[Gap, Gap | None]]) -> None:
        """The table has forgotten these; what they had grown by is a gap of its own."""
        with self._lock:
            for gap, rest in gaps:
                self._untold.pop(gap.id, None)
                self._leaving.discard(gap.id)
                if rest is not None:
                    self._untold[rest.id] = rest
