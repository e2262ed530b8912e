"""The judge: the same evidence and bar give the same verdict.  Pure; it is told everything."""

import math
from dataclasses import dataclass

from agent.core.evidence import Evidence
from agent.core.manifest import ProbationBar

ROWS_FOR_P99 = 200  # below that a 99th percentile is one or two rows, which prove nothing
LATENCY_SLACK_MS = 2.0  # a ratio of very small numbers is noise: this much more is always allowed


@dataclass(frozen=True, slots=True)
class Verdict:
    """PASS, FAIL(why) or WATCH."""

    word: str
    why: str = ""
    progress: float = 0.0  # towards PASS, 0 to 1


PASS = Verdict("PASS", progress=1.0)


def probation(seen: Evidence, bar: ProbationBar) -> Verdict:
    """Whether a promoted version has shown enough to be the known good."""
    if seen.errors > bar.errors:
        return Verdict("FAIL", f"{seen.errors} bad scores (at most {bar.errors}): {seen.why}")
    p99 = seen.latency.quantile(0.99)
    if (
        bar.latency_ratio is not None
        and seen.latency.rows >= ROWS_FOR_P99
        and math.isfinite(seen.before_p99_ms)
        and p99 > seen.before_p99_ms * bar.latency_ratio + LATENCY_SLACK_MS
    ):
        why = (
            f"p99 latency is {p99:.1f} ms, before it was {seen.before_p99_ms:.1f} ms "
            f"(at most {bar.latency_ratio:g} times that)"
        )
        return Verdict("FAIL", why)
    shares = [1.0]
    if bar.windows:
        shares.append(seen.windows / bar.windows)
    if bar.time:
        shares.append(seen.seconds / bar.time)
    if min(shares) >= 1.0:
        return PASS
    return Verdict("WATCH", progress=min(shares))
