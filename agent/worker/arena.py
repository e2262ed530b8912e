"""Shared memory between the agent and one worker, that no way of dying can leave behind.

Linux      a memfd, sealed against shrinking (a worker gone bad cannot make the agent's reads fault)
POSIX      a temporary file without a name
Windows    a named mapping backed by the page file, which goes with its last handle

The agent makes it, the worker inherits it.  It only ever grows; what lay at an offset stays there.
"""

import contextlib
import mmap
import os
import secrets
import sys
import tempfile
from pathlib import Path

_SEAL = sys.platform == "linux" and hasattr(os, "memfd_create")


class Arena:
    """One mapping.  `memory` is what arrays are laid over; `fd` (or `tag`) is how another opens it.

    A mapping with arrays over it cannot be closed, so `grow` and `close` just let go of it: it is
    given back with the last array.
    """

    def __init__(self, size: int, *, fd: int = -1, tag: str = "") -> None:
        self.size = size
        self.fd = fd
        self.tag = tag
        self.memory: mmap.mmap = _mapped(size, fd, tag)

    @classmethod
    def create(cls, size: int) -> "Arena":
        """A new one.  Raises OSError if there is no room."""
        if sys.platform == "win32":
            return cls(size, tag=_new_tag())
        fd = _anonymous_file()
        try:
            os.ftruncate(fd, size)
            return cls(size, fd=fd)
        except OSError:
            os.close(fd)
            raise

    def grow(self, size: int) -> None:
        """Make it `size` bytes (the agent's side).  Raises OSError if there is no room."""
        if sys.platform == "win32":
            tag = _new_tag()
            self.memory, self.tag = _mapped(size, -1, tag), tag
        else:
            os.ftruncate(self.fd, size)
            self.memory = _mapped(size, self.fd, "")
        self.size = size

    def follow(self, size: int, tag: str) -> None:
        """It was made `size` bytes by the other side."""
        self.memory = _mapped(size, self.fd, tag)
        self.size, self.tag = size, tag

    def close(self) -> None:
        """Let go of it.  Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        with contextlib.suppress(BufferError):
            self.memory.close()


def _mapped(size: int, fd: int, tag: str) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size, tagname=tag)
    return mmap.mmap(fd, size)


def _new_tag() -> str:
    return f"edge-agent-{secrets.token_hex(16)}"


def _anonymous_file() -> int:
    if _SEAL:
        import fcntl  # noqa: PLC0415  there is none on Windows

        fd = os.memfd_create("edge-agent-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return fd
    fd, path = tempfile.mkstemp(prefix="edge-agent-")
    Path(path).unlink()
    return fd
