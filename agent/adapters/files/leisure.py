"""How large files are worked on beside a stream that is being scored: a little, then a rest.

A model of 100 MB that comes as fast as the disk takes it has a processor for itself for half a
second, and each commit of the outbox waits for what the disk is writing.  What comes from a folder
or over a fast network is not needed at once.
"""

import time

STEP_BYTES = 128 * 1024
REST = 6.0  # of the time that was worked
REST_S_MAX = 0.1  # a slow disk is slow enough


class Pace:
    """Rests after each step so many times as long as it worked."""

    def __init__(self, rest: float) -> None:
        self._rest = rest

    def rest(self, began: float) -> None:
        """What was done since `began` (monotonic) was a step."""
        if self._rest:
            time.sleep(min(REST_S_MAX, self._rest * (time.monotonic() - began)))


AT_LEISURE = Pace(REST)
AT_ONCE = Pace(0.0)
