"""The judge: the same evidence and bars give the same verdict.  Pure; it is told everything.

Two rules keep chance out.  A version fails a bar only where so bad a showing would be all but
impossible for one that meets it (`DOUBT`), and it passes only while it is seen to meet it: between
the two more is looked at, until the time is up.  And what a busy machine does to every version is
no version's fault: latency has to stay bad for a while, and to be worse than what the other version
takes for the same batches.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from agent.core.bars import Bars
from agent.core.comparison import ROWS_WORTH_A_LOOK, Comparison
from agent.core.evidence import Evidence
from agent.core.samples import Reservoir, chance_of_so_few, distance, distance_error

DOUBT = 1e-4  # the chance, at one look, that a version just at the bar is failed for it
ROWS_FOR_P99 = 200  # below that a 99th percentile is one or two rows, which prove nothing
ROWS_FOR_P90 = 20
LATENCY_SLACK_MS = 2.0  # a ratio of very small numbers is noise: this much more is always allowed
SLICES_SLOW = 3  # of the recent latencies: so long it has to last
RUNS_FOR_MEDIAN = 10
RUN_RATIO = 1.2  # a run that takes no longer than this of the other version's is not slow


@dataclass(frozen=True, slots=True)
class Verdict:
    """PASS, FAIL(why) or WATCH.  `proven` is False where a FAIL only says that too little was
    seen in the time: no fault of the version.
    """

    word: str
    why: str = ""
    progress: float = 0.0  # towards PASS, 0 to 1
    proven: bool = True


PASS = Verdict("PASS", progress=1.0)
WATCH = Verdict("WATCH")
Judge = Callable[[Evidence, Bars], Verdict]


def _fail(why: str) -> Verdict:
    return Verdict("FAIL", why)


def shadow(seen: Evidence, bars: Bars) -> Verdict:
    """Whether a candidate, heard by nobody, has shown that it may answer."""
    bar, both = bars.shadow, seen.comparison
    if (broken := _broken(seen, bars)) is not None:
        return broken
    rows = both.rows if both is not None else seen.windows
    if (off := _off(seen, bars)) is not None:
        return off
    progress = min(1.0, rows / bar.windows) if bar.windows else 1.0
    short = _short_of(both, bars) if both is not None else ""
    if progress >= 1.0 and not short:
        return PASS
    if seen.seconds >= bar.max:
        told = short or f"{rows} of {bar.windows} windows came in {bar.max:g} s"
        return Verdict("FAIL", f"not shown in time: {told}", proven=False)
    return Verdict("WATCH", short, progress=min(progress, 0.99) if short else progress)


def canary(seen: Evidence, bars: Bars) -> Verdict:
    """Whether a candidate that answers for some sensors may answer for all."""
    if (broken := _broken(seen, bars) or _slow(seen, bars)) is not None:
        return broken
    wanted = bars.canary.windows
    return PASS if seen.windows >= wanted else Verdict("WATCH", progress=seen.windows / wanted)


def probation(seen: Evidence, bars: Bars) -> Verdict:
    """Whether a promoted version has shown enough to be the known good."""
    bar = bars.probation
    if (broken := watch(seen, bars)) is not WATCH:
        return broken
    shares = [1.0]
    if bar.windows:
        shares.append(seen.windows / bar.windows)
    if bar.time:
        shares.append(seen.seconds / bar.time)
    if min(shares) >= 1.0:
        return PASS
    return Verdict("WATCH", progress=min(shares))


def watch(seen: Evidence, bars: Bars) -> Verdict:
    """Whether a version that serves, held against another, has to go: FAIL, or else WATCH."""
    if (broken := _broken(seen, bars) or _slow(seen, bars)) is not None:
        return broken
    if bars.shadow.windows and (off := _off(seen, bars)) is not None:
        return off
    return WATCH


def serving(seen: Evidence, bars: Bars) -> Verdict:
    """Whether a version that serves alone has to go at once: FAIL, or else WATCH."""
    return _broken(seen, bars) or WATCH


def doubt(seen: Evidence, bars: Bars) -> str:
    """What cannot be told from a busy machine without a second opinion; empty if nothing."""
    verdict = _slow(seen, bars)
    return verdict.why if verdict is not None else ""


def moved(before: Reservoir, now: Reservoir, bars: Bars) -> str:
    """Whether the scores are others than they were, be it the world's doing; empty if not."""
    most = bars.shadow.score_distance
    if most is None or min(len(before), len(now)) < ROWS_WORTH_A_LOOK:
        return ""
    apart = distance(before.columns(), now.columns())
    if apart - distance_error(len(before), len(now), DOUBT, now.width) <= most:
        return ""
    return f"the scores have moved by {apart:.2f} (at most {most:g}, Kolmogorov-Smirnov)"


def _broken(seen: Evidence, bars: Bars) -> Verdict | None:
    """What no version may do, compared or not."""
    if seen.errors > bars.probation.errors:
        most = bars.probation.errors
        return _fail(f"{seen.errors} bad scores (at most {most}): {seen.why}")
    if seen.hangs:
        return _fail(f"a run did not end: {seen.why or 'its worker was stopped'}")
    if seen.rss_bytes > seen.rss_bytes_max:
        first, took, room = (
            size / 2**20 for size in (seen.rss_first_bytes, seen.rss_bytes, seen.rss_bytes_max)
        )
        return _fail(f"its memory grew from {first:.0f} to {took:.0f} MB (at most {room:.0f})")
    return None


def _off(seen: Evidence, bars: Bars) -> Verdict | None:
    """Whether it is all but impossible that it meets the bars of agreement and distance."""
    for both in (seen.comparison, seen.latest):
        if both is None or both.rows < ROWS_WORTH_A_LOOK:
            continue
        if (verdict := _apart(both, bars)) is not None:
            return verdict
    return None


def _apart(both: Comparison, bars: Bars) -> Verdict | None:
    bar = bars.shadow
    rows = max(1, math.floor(both.worth))
    agreed = min(rows, math.ceil(rows * both.agreement))
    if chance_of_so_few(agreed, rows, bar.agreement) < DOUBT:
        return _fail(
            f"{both.agreement:.1%} of {both.rows} windows agree (at least {bar.agreement:.1%})"
        )
    if bar.score_distance is not None and len(both.ours) >= ROWS_WORTH_A_LOOK:
        apart = both.score_distance
        error = distance_error(len(both.ours), len(both.theirs), DOUBT, both.ours.width)
        if apart - error > bar.score_distance:
            return _fail(
                f"the scores lie {apart:.2f} apart over {len(both.ours)} windows "
                f"(at most {bar.score_distance:g}, Kolmogorov-Smirnov)"
            )
    return None


def _short_of(both: Comparison, bars: Bars) -> str:
    """Which bar is not met by what was seen so far; empty if none."""
    bar = bars.shadow
    if not both.rows:
        return ""
    if both.agreement < bar.agreement:
        return f"{both.agreement:.1%} of {both.rows} windows agree (at least {bar.agreement:.1%})"
    if bar.score_distance is not None and both.score_distance > bar.score_distance:
        return f"the scores lie {both.score_distance:.2f} apart (at most {bar.score_distance:g})"
    return ""


def _slow(seen: Evidence, bars: Bars) -> Verdict | None:
    """Whether it has been slow for a while, and the other version is not just as slow."""
    ratio = bars.probation.latency_ratio
    if ratio is None or not math.isfinite(seen.before_p99_ms):
        return None
    limit = seen.before_p99_ms * ratio + LATENCY_SLACK_MS
    whole, parts = seen.recent.whole(seen.now), seen.recent.parts(seen.now)
    if whole.rows < ROWS_FOR_P90 or len(parts) < SLICES_SLOW:
        return None
    share = 0.99 if whole.rows >= ROWS_FOR_P99 else 0.9
    if any(part.quantile(share) <= limit for part in parts):
        return None
    both = seen.comparison
    if both is not None:
        ours, theirs = both.run_ours.whole(seen.now), both.run_theirs.whole(seen.now)
        if theirs.rows >= RUNS_FOR_MEDIAN and (
            ours.quantile(0.5) <= RUN_RATIO * theirs.quantile(0.5)
        ):
            return None
    return _fail(
        f"p{share * 100:.0f} latency is {whole.quantile(share):.1f} ms, before it was "
        f"{seen.before_p99_ms:.1f} ms (at most {ratio:g} times that)"
    )
