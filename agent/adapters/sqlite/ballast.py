"""A file that is given back when the disk is full, because then SQLite cannot even delete.

It holds room, not bytes; where a filesystem cannot reserve room it is written in full.
"""

import contextlib
import os
import shutil
from pathlib import Path

BYTES = 1024 * 1024


class Ballast:
    """`path` takes `BYTES` while `held`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.held = path.exists() and path.stat().st_size == BYTES

    def release(self) -> None:
        """Give the room back.  Never raises."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        self.held = False

    def take(self) -> bool:
        """Take the room if as much again stays free; whether it is held now.  Never raises."""
        if self.held:
            return True
        try:
            if shutil.disk_usage(self._path.parent).free < 2 * BYTES:
                return False
            self._reserve()
        except OSError:
            self.release()
        else:
            self.held = True
        return self.held

    def _reserve(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        fd = os.open(self._path, flags, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, BYTES)
            else:
                os.write(fd, bytes(BYTES))
            os.fsync(fd)
        finally:
            os.close(fd)
