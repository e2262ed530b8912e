"""paho's client as the other half of the bulk reader: it writes, and takes all but PUBLISH.

Touches private names of paho; tests/integration/test_mqtt_private.py pins them.
"""

import contextlib
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from agent.adapters.mqtt.guarded import Guarded
from agent.adapters.mqtt.ledger import Token

RECEIVE_BYTES = 256 * 1024
PUBACK = b"\x40\x02"
PINGREQ = b"\xc0\x00"


class Feed(Guarded):
    """A paho client without a loop: its owner reads the socket and feeds it.

    `ponged` is called for each answer to `acknowledge`, with the tokens given there.
    """

    ponged: Callable[[list[Token]], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._barriers: deque[list[Token]] = deque()  # one per PINGREQ that is not yet answered

    def receive(self) -> bytes | None:
        """What has come, up to 256 KiB; None if nothing has.  Never waits.

        Raises:
            ConnectionError: the connection is gone.
        """
        sock = self.socket()
        if sock is None:
            raise ConnectionResetError("the broker closed the data connection")
        self.check_frame()
        try:
            chunk = sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            raise ConnectionResetError(f"the data connection was lost: {error}") from error
        if not chunk:
            raise ConnectionResetError("the broker closed the data connection")
        with self._msgtime_mutex:
            self._last_bytes_received = time.monotonic()
        return chunk

    def is_drained(self, chunk: bytes) -> bool:
        """Whether `chunk`, just received, was all there was; only a plain socket can tell."""
        return len(chunk) < RECEIVE_BYTES and type(self.socket()) is socket.socket

    def pending(self) -> int:
        """Bytes that TLS has taken off the socket already, so that no select will tell of them."""
        return int(getattr(self.socket(), "pending", int)())

    def feed(self, head: int, body: bytes) -> None:
        """Handle a packet that is not PUBLISH; callbacks are called from here.

        Raises:
            ConnectionError: the packet ends the connection.
        """
        self._in_packet = {
            "command": head,
            "have_remaining": 1,
            "remaining_count": [],
            "remaining_mult": 1,
            "remaining_length": len(body),
            "packet": bytearray(body),
            "to_process": 0,
            "pos": 0,
        }
        try:
            failed = self._packet_handle()
        except ConnectionError:
            raise
        except Exception as error:  # paho stumbles over malformed packets in many ways
            raise ConnectionAbortedError(f"the broker sent something odd: {error!r}") from error
        if failed:
            raise ConnectionAbortedError(f"the broker sent what cannot be taken ({failed})")

    def acknowledge(self, mids: list[bytes], settled: list[Token]) -> None:
        """PUBACK for each packet id and one PINGREQ, in one write.

        The answer to the PINGREQ proves that the broker has read the PUBACKs before it: then
        `ponged` is called with `settled`.
        """
        packets = b"".join([PUBACK + mid for mid in mids]) + PINGREQ
        self._barriers.append(settled)
        self._packet_queue(PUBACK[0], packets, 0, 1)

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        if self.want_write():
            self.loop_write()

    def keep_alive(self) -> None:
        """As `loop_misc`; bytes that wait to be read are a sign of life, too.

        Whoever reads nothing for a while (the stream is paused, or its model not ready for more)
        does not see the answers to its pings.
        """
        sock = self.socket()
        if sock is not None:
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_READ)
                if self.pending() or selector.select(0):
                    with self._msgtime_mutex:
                        self._last_bytes_received = time.monotonic()
        self.loop_misc()

    def hang_up(self) -> None:
        """Close the socket, whatever state it is in."""
        sock = self.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def _send_pingreq(self) -> int:  # type: ignore[override]
        self._barriers.append([])
        return super()._send_pingreq()

    def _handle_pingresp(self) -> int:  # type: ignore[override]
        failed = super()._handle_pingresp()
        if self._barriers:
            self.ponged(self._barriers.popleft())
        return failed
