"""What a candidate was measured to take on this device, and whether that fits what it promised.

Noise only ever adds: a run is counted by the processor time it took where that can be told, each
golden sample by the median of its runs, and the version by its slowest sample.  If that is above
the 99th percentile it promised, it breaks its promise here whatever else the device is doing.  What
is slow only now and then is for probation to see.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.errors import MisfitError
from agent.core.manifest import Runtime
from agent.core.names import ModelRef

MEMORY_RATIO_MAX = 1.5  # another machine's allocator and libraries
MEMORY_SLACK_MB = 64.0


@dataclass(frozen=True, slots=True)
class Measures:
    """Of one loaded version, after its golden samples ran.

    sample_ms   per golden sample (the first few), the median of its runs as a batch of one row
    runs        how many runs that were
    rss_mb      resident memory of its worker; 0 where it cannot be told apart
    peak_mb     the most that ever was; 0 where nobody can tell
    """

    sample_ms: Sequence[float] = ()
    runs: int = 0
    rss_mb: float = 0.0
    peak_mb: float = 0.0


def check(ref: ModelRef, runtime: Runtime, measured: Measures) -> None:
    """That `measured` keeps what `[runtime]` promises.

    Raises:
        MisfitError: it does not; with both figures.
    """
    slowest = max(measured.sample_ms, default=0.0)
    promised_ms = runtime.latency_ms_p99
    if promised_ms is not None and slowest > promised_ms:
        raise MisfitError(
            f"{ref}: a run takes {slowest:.3g} ms here (median of the slowest golden sample,"
            f" {measured.runs} runs) and runtime.latency_ms_p99 promises {promised_ms:g}; it needs"
            " a faster device, or another promise"
        )
    stated_mb = runtime.memory_mb
    if stated_mb is None:
        return
    most_mb = max(MEMORY_RATIO_MAX * stated_mb, stated_mb + MEMORY_SLACK_MB)
    if measured.rss_mb > most_mb:
        raise MisfitError(
            f"{ref}: it takes {measured.rss_mb:.0f} MB here and runtime.memory_mb says"
            f" {stated_mb:g} (up to {most_mb:.0f} is let pass); `edge-agent model build` measures"
            " it anew"
        )
