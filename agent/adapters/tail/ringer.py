"""What tells a tailed file's reader that there may be more: watchdog's thread, and a socket."""

import contextlib
import os
import socket
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler


class Ringer(FileSystemEventHandler):
    """Rings when something happened to the file; in watchdog's thread, so it does nothing else."""

    def __init__(self, file_name: str, ring: socket.socket) -> None:
        self._file_name = file_name
        self._ring = ring
        ring.setblocking(False)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Ring for what changes the file; not for others who read it."""
        if event.event_type in ("created", "modified", "moved", "deleted"):
            names = (os.fsdecode(event.src_path), os.fsdecode(event.dest_path))
            if any(Path(name).name == self._file_name for name in names):
                self.ring()

    def ring(self) -> None:
        """Make the other end readable."""
        with contextlib.suppress(OSError):  # full: it rings already; closed: nobody listens
            self._ring.send(b"\0")

    def close(self) -> None:
        """No more."""
        self._ring.close()
