"""The agent's side: a worker that is started before it is known what for.

It imports numpy and onnxruntime while the agent imports what that needs, and then waits for its
errand.  The first worker that is wanted is made of it: on two cores a device scores so much sooner.
Not where no sockets are inherited (Windows).
"""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from agent.worker import control, launch


@dataclass(slots=True)
class Early:
    """A worker that waits: our ends of its sockets, and of its standard error."""

    process: "subprocess.Popen[bytes]"
    data: socket.socket
    control: socket.socket
    stderr: int

    def send(self, errand: dict[str, Any], arena: int) -> None:
        """Tell it what for, and hand over the shared memory.  Raises OSError, GoneError."""
        control.send_errand(self.control, errand, arena)

    def close(self) -> None:
        """It is not wanted."""
        self.process.kill()
        self.process.wait()
        self.data.close()
        self.control.close()
        os.close(self.stderr)


_waiting: Early | None = None


def start() -> None:
    """Have one wait, to be called by a thread that never ends; whatever is in the way, nothing."""
    global _waiting  # noqa: PLW0603  one per process
    if sys.platform == "win32" or _waiting is not None:
        return
    try:
        _waiting = spawned({"background": False, "waits": True}, starter=subprocess.Popen)
    except (OSError, ModuleNotFoundError):
        return  # said when a worker is really wanted


def take() -> Early | None:
    """The one that waits, if there is one and it lives."""
    global _waiting
    early, _waiting = _waiting, None
    if early is not None and early.process.poll() is not None:
        early.close()
        return None
    return early


def spawned(
    errand: dict[str, Any], *, starter: Any = launch.start, more: tuple[int, ...] = ()
) -> Early:
    """A worker with sockets that it inherits, and the descriptors in `more`.

    Raises OSError, ModuleNotFoundError.
    """
    data, their_data = socket.socketpair()
    asked, their_asked = socket.socketpair()
    read, write = os.pipe()
    os.set_blocking(write, False)  # a worker that talks too much loses words, not time
    os.set_blocking(read, False)
    theirs = (their_data.fileno(), their_asked.fileno())
    errand = errand | {"data": theirs[0], "control": theirs[1], "port": 0, "parent": os.getpid()}
    try:
        process = starter(
            launch.command(launch.package_folders(), errand),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=write,
            env=launch.environment(),
            cwd="/",
            pass_fds=[*theirs, *more],
            # Not a session of its own: the kernel would give that a fair share of the processor
            # (sched_autogroup), however low the worker's class is within it.
            process_group=0,
        )
    except BaseException:
        data.close()
        asked.close()
        os.close(read)
        raise
    finally:
        os.close(write)
        their_data.close()
        their_asked.close()
    return Early(process, data, asked, read)
