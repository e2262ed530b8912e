"""A disk that says no, to SQLite itself: the descriptors that this process holds of a file are
swapped for ones of which the system refuses what is asked.

    with refusing(path, "writes"): …                       in this process
    REFUSING=FOLDER python -m tests.world.refusing run …   the agent as it is, in such a process

Whoever writes "WHAT PATH" to FOLDER/what has it refused until FOLDER/what is gone again;
FOLDER/done tells that either has been done.  "forgotten PATH" has SQLite read anew what it had in
memory.
Nothing in the product knows of this.  (SQLite's lock of the file is gone from then on.)
"""

import contextlib
import gc
import os
import sqlite3
import threading
import time
from pathlib import Path

FOLDER = "REFUSING"
LOOK_S = 0.02
OPEN = Path("/proc/self/fd")
OTHERS = {
    "writes": lambda path: os.open(path, os.O_RDONLY),
    "reads": lambda path: os.open(path, os.O_WRONLY),
    # takes what is written, has kept none of it, and says so when it is to be synced
    "syncs": lambda _: os.open(os.devnull, os.O_RDWR),
}


@contextlib.contextmanager
def refusing(path, what):
    """`what` of the file is refused while this lasts."""
    held = [int(fd.name) for fd in OPEN.iterdir() if _leads_to(fd, path)]
    assert held, f"nobody has {path} open"
    whole = {fd: os.dup(fd) for fd in held}
    other = OTHERS[what](path)
    for fd in held:
        os.dup2(other, fd, inheritable=False)
    os.close(other)
    try:
        yield
    finally:
        for fd, kept in whole.items():
            os.dup2(kept, fd, inheritable=False)
            os.close(kept)


def _leads_to(fd, path):
    with contextlib.suppress(OSError):  # one that is closed meanwhile
        return fd.readlink() == Path(path).resolve()
    return False


def forgotten(_path):
    """Every connection of this process lets go of the pages it has in memory."""
    for one in gc.get_objects():
        if isinstance(one, sqlite3.Connection):
            one.execute("PRAGMA shrink_memory")


def refuse(folder):
    """As told, for ever."""
    told, done = folder / "what", folder / "done"
    while True:
        time.sleep(LOOK_S)
        if not told.exists():
            continue
        what, _, path = told.read_text().partition(" ")
        with contextlib.ExitStack() as while_told:
            if what == "forgotten":
                forgotten(path)
            else:
                while_told.enter_context(refusing(path, what))
            done.write_text("begun")
            while told.exists():
                time.sleep(LOOK_S)
        done.write_text("over")


def main():
    """Run the agent's command line on such a disk."""
    threading.Thread(
        target=refuse, args=(Path(os.environ[FOLDER]),), name="refusing", daemon=True
    ).start()
    from agent.cli import main as agent

    agent()


if __name__ == "__main__":
    main()
