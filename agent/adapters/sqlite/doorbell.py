"""Tells those who wait that there was a commit: a descriptor for the lane's selector, events for
coroutines.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator


class Doorbell:
    """`ring` in the writer thread; the rest where one waits."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._is_told = False  # a byte waits in the socket pair
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def fileno(self) -> int:
        """Readable once it has rung."""
        return self._reader.fileno()

    def quiet(self) -> None:
        """Heard; what rings from now on is heard anew."""
        if self._is_told:
            self._reader.recv(1)
            self._is_told = False

    def ring(self) -> None:
        """There was a commit.  Never waits."""
        if not self._is_told:
            with contextlib.suppress(OSError):  # closed: nobody listens any more
                self._writer.send(b"\0")
                self._is_told = True  # after the byte: who sees it finds one
        for loop, event in list(self._waiters):
            with contextlib.suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(event.set)

    @contextlib.contextmanager
    def heard(self) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set at each commit."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        self._waiters.append(waiter)
        try:
            yield event
        finally:
            self._waiters.remove(waiter)

    def close(self) -> None:
        """Let go of the descriptors."""
        self._reader.close()
        self._writer.close()
