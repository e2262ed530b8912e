"""paho's client with what it lacks: TCP_NODELAY, a limit on what a broker may make us read, and
sockets that are closed when they do not come to stand.

Our MaximumPacketSize is only a wish: a broker that ignores it can make stock paho hold any packet
of up to 256 MB.  Here the announced length is checked before a byte of the body is read.  Touches
private names of paho; tests/integration/test_mqtt_private.py pins them.
"""

import socket
import ssl
from typing import Any, Literal

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion

CHUNK_BYTES_MAX = 64 * 1024
FRAME_BYTES_SPARE = 1024 * 1024  # a websocket frame may carry several packets
RECEIVE_BUFFER_BYTES = 1024 * 1024
REASON_AT = 2  # in a PUBACK, behind the packet id
FAILURE = 0x80  # and above
REASONS = frozenset((0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99))  # that it may have


class TooBigError(ConnectionError):
    """The broker announced more than it may send; the connection is given up."""


class Guarded(Client):
    """A paho client that gives the connection up when a packet is announced too big.

    `packet_bytes_max` limits the part after the fixed header; `too_big` says what was announced.
    `hung_up`: the far side has closed the connection, as a process does that ends.
    `odd_reason`: of the PUBACK in hand, where MQTT knows no such reason there; paho would give the
    connection up, meet the same again on the next, and so for ever.
    """

    packet_bytes_max: int = 1024 * 1024
    too_big: int = 0
    hung_up: bool = False
    odd_reason: int = 0
    _begun: socket.socket | None = None

    def _sock_recv(self, bufsize: int) -> bytes:
        incoming = self._in_packet
        if incoming["have_remaining"] and incoming["remaining_length"] > self.packet_bytes_max:
            self.too_big = incoming["remaining_length"]
            msg = f"a packet of {self.too_big} bytes, where {self.packet_bytes_max} are the limit"
            raise TooBigError(msg)
        self.check_frame()
        came = super()._sock_recv(min(bufsize, CHUNK_BYTES_MAX))
        self.hung_up = not came
        return came

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        self.odd_reason = 0
        if (
            self.protocol == MQTTProtocolVersion.MQTTv5
            and len(packet) > REASON_AT
            and packet[REASON_AT] not in REASONS
        ):
            self.odd_reason = packet[REASON_AT]
            said = b"\x80" if self.odd_reason >= FAILURE else b"\0"
            self._in_packet["packet"] = packet[:REASON_AT] + said + packet[REASON_AT + 1 :]
        return super()._handle_pubackcomp(cmd)

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

    def _create_socket(self) -> Any:
        try:
            return super()._create_socket()
        except BaseException:
            if self._begun is not None:  # paho leaves it open when TLS or websockets fail
                self._begun.close()
            raise

    def _create_socket_connection(self) -> Any:
        sock = self._begun = super()._create_socket_connection()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        return sock

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        context = self._ssl_context
        assert context is not None
        assert context.check_hostname, "a broker's name is always checked"
        sock = self._begun = context.wrap_socket(
            tcp_sock, server_hostname=self.host, do_handshake_on_connect=False
        )
        sock.settimeout(self.connect_timeout)
        sock.do_handshake()
        return sock
