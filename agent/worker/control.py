"""Everything but scoring: JSON questions on the control socket, one answer each, in order.

    4 bytes, little-endian: length | JSON

A question has `do`; an answer has either `refused` (a blame) and `why`, or what was asked for.
"""

import json
import socket
from struct import Struct
from typing import Any

_LENGTH = Struct("<I")
BYTES_MAX = 16 * 2**20
_ARENA = b"a"  # goes with the descriptor of the shared memory


class GoneError(Exception):
    """The other side is not there any more."""


def send(sock: socket.socket, document: dict[str, Any]) -> None:
    """Raises GoneError, or TimeoutError if the socket has a timeout."""
    body = json.dumps(document).encode()
    try:
        sock.sendall(_LENGTH.pack(len(body)) + body)
    except TimeoutError:
        raise
    except OSError as error:
        raise GoneError(str(error)) from error


def receive(sock: socket.socket) -> dict[str, Any]:
    """The next document.  Raises GoneError, or TimeoutError if the socket has a timeout."""
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    if length > BYTES_MAX:
        msg = f"a control message of {length} bytes"
        raise GoneError(msg)
    try:
        document = json.loads(_exactly(sock, length))
    except ValueError as error:
        raise GoneError(str(error)) from error
    if not isinstance(document, dict):
        msg = "a control message that is no object"
        raise GoneError(msg)
    return document


def send_errand(sock: socket.socket, errand: dict[str, Any], arena: int) -> None:
    """To a worker that waits for it (see `early`), with a descriptor of the shared memory.

    Raises GoneError.
    """
    try:
        socket.send_fds(sock, [_ARENA], [arena])
    except OSError as error:
        raise GoneError(str(error)) from error
    send(sock, errand)


def receive_errand(sock: socket.socket) -> dict[str, Any]:
    """The worker's side; `arena` is a descriptor of its own.  Raises GoneError."""
    try:
        word, descriptors, _, _ = socket.recv_fds(sock, len(_ARENA), 1)
    except OSError as error:
        raise GoneError(str(error)) from error
    if word != _ARENA or not descriptors:
        raise GoneError("there is no errand")
    return receive(sock) | {"arena": descriptors[0]}


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = sock.recv(size - len(parts))
        except TimeoutError:
            raise
        except OSError as error:
            raise GoneError(str(error)) from error
        if not part:
            msg = "the other side closed"
            raise GoneError(msg)
        parts += part
    return bytes(parts)
