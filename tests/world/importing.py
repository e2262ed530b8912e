"""The agent as it is, which writes down what its lane imports.

    IMPORTED=FILE python -m tests.world.importing run --config …

An import takes the interpreter for as long as it lasts, and the lane has a stream in its hands.
"""

import os
import sys
import threading
from pathlib import Path

PATH = "IMPORTED"


def main() -> None:
    """Run the agent's command line under an audit hook."""
    path = Path(os.environ[PATH])
    path.touch()

    def heard(event: str, arguments: tuple[object, ...]) -> None:
        if event == "import" and threading.current_thread().name == "lane":
            with path.open("a") as file:
                file.write(f"{arguments[0]}\n")

    sys.addaudithook(heard)
    from agent.cli import main as agent

    agent()


if __name__ == "__main__":
    main()
