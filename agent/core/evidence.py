"""What was seen of one version while it scored, in fixed memory: what the judge judges by."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.comparison import Comparison
from agent.core.latency import Latency, Recent
from agent.core.samples import Reservoir
from agent.core.scores import ScoreColumns

SLICE_S, SLICES = 4.0, 4  # of the recent latencies: long enough that a hiccup is not all of them
RSS_SLACK_BYTES = 64 * 2**20  # what a worker may grow by in any case: arenas, code paged in
LATEST_ROWS = 2048
RSS_RATIO = 2.0  # what it may grow to, of what it took when it had been proven


def _recent() -> Recent:
    return Recent(SLICE_S, SLICES)


@dataclass(slots=True)
class Evidence:
    """Counts since a version took its seat, or since its phase began.

    `now` is the monotonic time of the last look at it; `seconds` since it began.
    """

    windows: int = 0
    errors: int = 0  # rows that came out not finite, or whose run failed
    deaths: int = 0  # of its worker
    hangs: int = 0  # runs that had to be ended
    skipped: int = 0  # windows there was no time to compare
    seconds: float = 0.0
    now: float = 0.0
    latency: Latency = field(default_factory=Latency)
    recent: Recent = field(default_factory=_recent)
    before_p99_ms: float = math.nan  # of the version it replaced
    rss_bytes: int = 0
    rss_first_bytes: int = 0  # when it had been proven
    memory_mb: float | None = None  # what its manifest says it takes
    comparison: Comparison | None = None  # with the version it is held against
    latest: Comparison | None = None  # the same, of the last rows: what goes wrong late shows here
    scores: Reservoir | None = None  # a sample of what it said, where that is looked at
    apart: str = ""  # why it is not held against another
    why: str = ""  # the last error, in words

    def scored(self, rows: int, ms: float, now: float) -> None:
        """`rows` windows have their score, `ms` after their readings came."""
        self.windows += rows
        self.latency.add(ms, rows)
        self.recent.add(ms, rows, now)

    def hold_against(self, rtol: float, atol: float) -> None:
        """Another version will score the same windows; see `Comparison` for the tolerance."""
        self.comparison = Comparison(rtol, atol)
        self.latest = Comparison(rtol, atol)

    def compared(self, ours: ScoreColumns, theirs: ScoreColumns) -> int:
        """The other version has scored the same windows; see `Comparison.add`."""
        if self.comparison is None or self.latest is None:
            return 0
        broken = self.comparison.add(ours, theirs)
        if self.latest.rows >= LATEST_ROWS:
            self.latest = Comparison(self.latest.rtol, self.latest.atol)
        self.latest.add(ours, theirs)
        return broken

    @property
    def rss_bytes_max(self) -> int:
        """More than this is a leak."""
        if not self.rss_first_bytes:
            return 2**63
        said = int(1.5 * (self.memory_mb or 0) * 2**20)
        return max(said, int(RSS_RATIO * self.rss_first_bytes)) + RSS_SLACK_BYTES

    def document(self) -> dict[str, Any]:
        """The figures, for reports and receipts; what is not known is None."""
        seen = self.comparison
        return {
            "windows": self.windows if seen is None else seen.rows,
            "agreement": None if seen is None else rounded(seen.agreement, 4),
            "score_distance": None if seen is None else rounded(seen.score_distance, 4),
            "saturated": None if seen is None else rounded(seen.stuck, 4),
            "errors": self.errors,
            "skipped": self.skipped,
            "deaths": self.deaths,
            "hangs": self.hangs,
            "latency_ms": {
                "p50": rounded(self.latency.quantile(0.5), 3),
                "p99": rounded(self.latency.quantile(0.99), 3),
            },
            "before_p99_ms": rounded(self.before_p99_ms, 3),
            "rss_mb": round(self.rss_bytes / 2**20, 1),
            "seconds": round(self.seconds, 1),
            "apart": self.apart,
        }


def rounded(value: float, places: int) -> float | None:
    """`value` for a document: None where it is no number."""
    return round(value, places) if math.isfinite(value) else None


def testimony(
    phase: str, release: int, seen: Evidence, bars: Mapping[str, Any], wanted: int
) -> dict[str, Any]:
    """The evidence of one phase as reports and receipts carry it, before its verdict."""
    return {
        "phase": phase,
        "release": release,
        "wanted": wanted,
        "bars": dict(bars),
        **seen.document(),
    }
