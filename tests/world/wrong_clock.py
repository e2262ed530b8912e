"""The agent as it is, on a device whose wall clock is wrong by what a file says.

    WRONG_CLOCK=FILE python -m tests.world.wrong_clock run --config …

The file holds the seconds to add to the right time.  The monotonic clock stays as it is: nobody can
set that one.  Nothing in the product knows of this.
"""

import os
import time
from pathlib import Path

PATH = "WRONG_CLOCK"
YEAR_S = 365.25 * 86400


class WrongClock:
    """The file, as a test writes it.  Right until it is told otherwise."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set(0.0)

    def set(self, offset_s: float) -> None:
        """The agent's clock is `offset_s` ahead from now on."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(repr(offset_s))
        fresh.replace(self.path)

    def show(self, wall: float) -> None:
        """The agent's clock shows `wall` now, and goes on from there."""
        self.set(wall - time.time())


def main() -> None:
    """Run the agent's command line under the clock of the file."""
    from agent.app import choices

    path = Path(os.environ[PATH])

    class Clock(choices.SystemClock):
        def wall(self) -> float:
            return super().wall() + float(path.read_text())

    choices.SystemClock = Clock  # type: ignore[misc]
    from agent.cli import main as agent

    agent()


if __name__ == "__main__":
    main()
