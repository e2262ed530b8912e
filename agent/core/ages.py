"""How long things have waited, on a device whose clock may be wrong.  Pure; told the time.

A line of seconds that only ever rises.  While the agent runs it goes with the monotonic clock, so
no step of the wall clock can age anything.  The time between two runs is added only if the wall
clock was believed and went steadily before and is believed after: what cannot be known to have
passed has not passed.
"""

from dataclasses import dataclass

STEP_S_MAX = 60.0  # the two clocks may drift apart by so much in one run


@dataclass(slots=True)
class Line:
    """Begun at `start` when the monotonic clock stood at `mono`; `wall` is None if not believed."""

    start: float
    mono: float
    wall: float | None
    steady: bool = True

    def now(self, mono: float) -> float:
        """Seconds on the line."""
        return self.start + max(0.0, mono - self.mono)

    def look(self, mono: float, wall: float | None) -> float:
        """The wall clock to store beside `now`; 0 if this run's is not to be relied on."""
        if wall is None or self.wall is None:
            self.steady = False
            return 0.0
        if abs((wall - self.wall) - (mono - self.mono)) > STEP_S_MAX:
            self.steady = False
        return wall if self.steady else 0.0


def resumed(line: float, stored_wall: float, mono: float, wall: float | None) -> Line:
    """The line of a new run, from where the last one stored `line` and the wall clock."""
    away = wall - stored_wall if wall is not None and stored_wall > 0 else 0.0
    return Line(line + max(0.0, away), mono, wall)
