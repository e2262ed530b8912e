"""paho's client with what it lacks: TCP_NODELAY, and a limit on what a broker may make us read.

Our MaximumPacketSize is only a wish: a broker that ignores it can make stock paho hold any packet
of up to 256 MB.  Here the announced length is checked before a byte of the body is read.  Touches
private names of paho; tests/integration/test_mqtt_private.py pins them.
"""

import socket
from typing import Any

from paho.mqtt.client import Client

CHUNK_BYTES_MAX = 64 * 1024
FRAME_BYTES_SPARE = 1024 * 1024  # a websocket frame may carry several packets
RECEIVE_BUFFER_BYTES = 1024 * 1024


class TooBigError(ConnectionError):
    """The broker announced more than it may send; the connection is given up."""


class Guarded(Client):
    """A paho client that gives the connection up when a packet is announced too big.

    `packet_bytes_max` limits the part after the fixed header; `too_big` says what was announced.
    """

    packet_bytes_max: int = 1024 * 1024
    too_big: int = 0

    def _sock_recv(self, bufsize: int) -> bytes:
        incoming = self._in_packet
        if incoming["have_remaining"] and incoming["remaining_length"] > self.packet_bytes_max:
            self.too_big = incoming["remaining_length"]
            msg = f"a packet of {self.too_big} bytes, where {self.packet_bytes_max} are the limit"
            raise TooBigError(msg)
        self.check_frame()
        return super()._sock_recv(min(bufsize, CHUNK_BYTES_MAX))

    def check_frame(self) -> None:
        """Hold paho's websocket buffer to its limit too: it keeps a frame until it is whole.

        Raises:
            TooBigError: the frame is too big.
        """
        held = len(getattr(self.socket(), "_readbuffer", b""))
        if held > self.packet_bytes_max + FRAME_BYTES_SPARE:
            self.too_big = held
            msg = f"a websocket frame of more than {held} bytes"
            raise TooBigError(msg)

    def _create_socket_connection(self) -> Any:
        sock = super()._create_socket_connection()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        return sock
