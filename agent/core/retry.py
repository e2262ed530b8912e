"""How long to wait between tries: capped, doubling, fully jittered, as a plain iterator.

Full jitter (uniform between 0 and the current cap) spreads a fleet that lost the same broker best;
a floor keeps one device from hammering.
"""

from collections.abc import Iterator
from random import Random


def delays(first_s: float, most_s: float, random: Random) -> Iterator[float]:
    """Seconds to wait before the 1st, 2nd, … further try.  Never ends, never exceeds `most_s`."""
    ceiling = first_s
    while True:
        yield max(first_s / 4, random.uniform(0.0, ceiling))
        ceiling = min(most_s, ceiling * 2)
