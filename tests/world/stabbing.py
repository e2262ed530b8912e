"""The agent as it is, in a process in which one thread after the other meets a surprise.

    STABBING=FOLDER python -m tests.world.stabbing run --config …

Whoever writes the name of a thread to FOLDER/name has an exception raised in it at whatever it does
just then; FOLDER/done tells that it is on its way.  Nothing in the product knows of this.
"""

import ctypes
import os
import threading
import time
from pathlib import Path

FOLDER = "STABBING"
LOOK_S = 0.02


class StabbedError(Exception):
    """What nobody has thought of."""


def stab(folder: Path) -> None:
    """As told, for ever."""
    while True:
        time.sleep(LOOK_S)
        try:
            name = (folder / "name").read_text()
        except FileNotFoundError:
            continue
        (folder / "name").unlink()
        for thread in threading.enumerate():
            if thread.name == name and thread.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread.ident), ctypes.py_object(StabbedError)
                )
                (folder / "done").write_text(name)


def main() -> None:
    """Run the agent's command line, in danger."""
    folder = Path(os.environ[FOLDER])
    threading.Thread(target=stab, args=(folder,), name="stabbing", daemon=True).start()
    from agent.cli import main as agent

    agent()


if __name__ == "__main__":
    main()
