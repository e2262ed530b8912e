"""Connecting without waiting: a dial is a short-lived thread, and a socket tells of its end."""

import contextlib
import socket
import threading

from agent.adapters.mqtt.feed import Feed
from agent.adapters.mqtt.options import Options
from agent.core.errors import UnavailableError


class Dialler:
    """Makes connected clients, one at a time, for an owner that must not wait."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()  # over the outcome and the end
        self._outcome: tuple[Feed | None, str] | None = None
        self._is_closed = False
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self.is_busy = False

    def fileno(self) -> int:
        """Readable when a dial has ended."""
        return self._wake_r.fileno()

    def start(self) -> None:
        """Begin to dial; `take` will tell how it ended."""
        self.is_busy = True
        name = f"dial-{self._options.client_id}"
        threading.Thread(target=self._dial, name=name, daemon=True).start()

    def take(self) -> tuple[Feed | None, str] | None:
        """A client that has sent its CONNECT, or None and why not; None while there is no end."""
        with self._lock:
            outcome, self._outcome = self._outcome, None
        if outcome is not None:
            self.is_busy = False
            with contextlib.suppress(BlockingIOError):
                self._wake_r.recv(16)
        return outcome

    def close(self) -> None:
        """Give up; a dial that is under way hangs up by itself when it gets through."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            outcome, self._outcome = self._outcome, None
            self._wake_r.close()
            self._wake_w.close()
        if outcome and outcome[0]:
            outcome[0].hang_up()

    def _dial(self) -> None:
        client = self._options.client(Feed)
        client.packet_bytes_max = self._options.packet_bytes_max
        why = ""
        try:
            self._options.connect(client)
        except UnavailableError as error:
            why = str(error)
        with self._lock:
            if why or self._is_closed:
                client.hang_up()
            if not self._is_closed:
                self._outcome = (None, why) if why else (client, "")
                self._wake_w.send(b"\0")
