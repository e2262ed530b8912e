"""The swap receipt: the proof of one swap or rollback, in figures.

A trace is laid on a scoring when a candidate starts to load, and follows the stream until a while
after the swap: p99 before, during (load and swap) and after; the last row of the old version and
the first of the new.  It is written by the lane's thread and read by control.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.core.fields import finite
from agent.core.health import Counts
from agent.core.latency import Latency, Recent
from agent.core.names import ModelRef

PHASES_MAX = 8  # that a receipt has evidence of
WHY_MAX = 1000


@dataclass(slots=True, eq=False)
class SwapTrace:
    """Follows one change of version.  Sequence numbers are of score rows; -1 means none yet."""

    kind: str  # swap | rollback
    old: ModelRef | None
    new: ModelRef | None
    why: str = ""
    swapped: bool = False
    finished: bool = False
    last_old: int = -1
    first_new: int = -1
    rows_new: int = 0
    gap: int = 0  # sequence numbers between the two versions that nobody has
    repeated: int = 0
    pause_ms: float = math.nan  # from the last score of the old to the first of the new
    rss_before: int = 0
    rss_after: int = 0
    time: float = 0.0  # wall, of the swap
    counts: Counts | None = None  # the account as the new version took over
    before: Latency = field(default_factory=Latency)
    during: Latency = field(default_factory=Latency)
    after: Latency = field(default_factory=Latency)
    evidence: list[Mapping[str, Any]] = field(default_factory=list)  # of phases, as they are left
    rescored: Mapping[str, int] | None = None  # rows taken back and scored again, see `past`
    rescoring: bool = False  # these rows are still being scored
    between: int = 0  # of these, rows numbered before the first of the new version's own
    _last_old_at: float = math.nan

    def watch(self, recent: Recent, now: float) -> None:
        """The candidate starts to load: what was until now is `before`."""
        self.before = recent.whole(now)

    def swap(self, next_seq: int) -> None:
        """The new version takes the next reading."""
        self.swapped = True
        self.last_old = max(self.last_old, next_seq - 1)

    def scored(self, ref: ModelRef, first: int, rows: int, ms: float, now: float) -> None:
        """`rows` rows from seq `first` on came from `ref`, `ms` after they arrived."""
        if self.finished:
            return
        if self.swapped and ref == self.new:
            if self.first_new < 0:
                self.first_new = first
                if self.last_old >= 0:  # what the old one still ends behind a canary is no gap
                    self.gap = first - self.last_old - 1 - self.between
                self.pause_ms = (now - self._last_old_at) * 1000.0
            elif first <= self.last_old:
                self.repeated += rows
            self.rows_new += rows
            self.after.add(ms, rows)
        else:
            self.last_old = first + rows - 1
            self._last_old_at = now
            self.during.add(ms, rows)

    def superseded(self, rows: int) -> None:
        """`rows` rows have their numbers that take the place of others."""
        if self.swapped and self.first_new < 0:
            self.between += rows

    def document(self) -> dict[str, Any]:
        """The receipt as events and reports carry it."""
        return {
            "kind": self.kind,
            "from": _ref(self.old),
            "to": _ref(self.new),
            "why": self.why[:WHY_MAX],
            "time": self.time,
            "complete": self.finished,
            "last_seq": self.last_old if self.last_old >= 0 else None,
            "first_seq": self.first_new if self.first_new >= 0 else None,
            "gap": self.gap,
            "duplicates": self.repeated,
            "pause_ms": _round(self.pause_ms),
            "p99_ms": {
                "before": _round(self.before.quantile(0.99)),
                "during": _round(self.during.quantile(0.99)),
                "after": _round(self.after.quantile(0.99)),
            },
            "rows": {
                "before": self.before.rows,
                "during": self.during.rows,
                "after": self.after.rows,
            },
            "counts": self.counts.document() if self.counts is not None else None,
            "rescored": self.rescored,
            "rss_mb": {
                "before": round(self.rss_before / 2**20, 1),
                "after": round(self.rss_after / 2**20, 1),
            },
            "evidence": last_of_each_phase(self.evidence),
        }


def last_of_each_phase(evidence: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each phase had shown when it was left, in the order in which they first were."""
    last = {str(document.get("phase")): document for document in evidence}
    return [
        {**document, "why": str(document.get("why", ""))[:WHY_MAX]}
        for document in [*last.values()][-PHASES_MAX:]
    ]


def _ref(ref: ModelRef | None) -> dict[str, Any] | None:
    return None if ref is None else {"release": ref.release, "digest": ref.digest}


def _round(value: float) -> float | None:
    return finite(round(value, 3)) if math.isfinite(value) else None
